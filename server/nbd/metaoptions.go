package nbd

import (
	"encoding/binary"
	"errors"
	"strings"

	"lsad/internal/nbdproto"
)

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT.
func (h *handshake) metaContext(opt uint32) {
	set := opt == nbdproto.OptSetMetaContext
	if set { // what was selected before is gone even if this fails
		h.sess.contexts, h.metaFor = nil, ""
	}
	if !h.sess.structured && !h.sess.extended {
		h.refuse(opt, nbdproto.RepErrInvalid, "metadata contexts need structured replies or extended headers")
		return
	}
	name, queries, err := parseMetaQueries(h.data)
	if err != nil {
		h.refuse(opt, nbdproto.RepErrInvalid, "%w", err)
		return
	}
	e, rep, err := h.open(name)
	if err != nil {
		h.refuse(opt, rep, "%w", err)
		return
	}
	e.Close()

	for i := range h.c.srv.contexts {
		ctx := &h.c.srv.contexts[i]
		if !selects(queries, ctx.name, !set) {
			continue
		}
		var id [4]byte // reserved, zero, in the replies to LIST
		if set {
			a := activeContext{id: uint32(i + 1), metaContext: ctx}
			binary.BigEndian.PutUint32(id[:], a.id)
			h.sess.contexts = append(h.sess.contexts, a)
		}
		h.reply(opt, nbdproto.RepMetaContext, id[:], []byte(ctx.name))
	}
	if set {
		h.metaFor = name
	}
	h.reply(opt, nbdproto.RepAck)
}

// selects says whether one of the queries selects a context. No query at all lists every context, and sets none.
func selects(queries []string, name string, list bool) bool {
	if len(queries) == 0 {
		return list
	}
	for _, q := range queries {
		if matchContext(q, name, list) {
			return true
		}
	}
	return false
}

// parseMetaQueries takes apart the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func parseMetaQueries(data []byte) (name string, queries []string, err error) {
	name, data, ok := cutString(data)
	if !ok {
		return "", nil, errors.New("the export name is longer than the option's data")
	}
	if len(data) < 4 {
		return "", nil, errors.New("the number of queries is missing")
	}
	count := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(count) > uint64(len(data)/4) {
		return "", nil, errors.New("there are fewer queries than announced")
	}
	for range count {
		var q string
		if q, data, ok = cutString(data); !ok {
			return "", nil, errors.New("a query is longer than the option's data")
		}
		if !validString(q) || strings.IndexByte(q, ':') < 1 {
			return "", nil, errors.New("a query must be NAMESPACE:LEAF")
		}
		queries = append(queries, q)
	}
	if len(data) != 0 {
		return "", nil, errors.New("there is data after the last query")
	}
	return name, queries, nil
}

// cutString takes a string with a length of 32 bits off the front of data.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n) > uint64(len(data)) {
		return "", nil, false
	}
	return string(data[:n]), data[n:], true
}

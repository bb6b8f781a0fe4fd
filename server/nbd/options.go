package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unicode/utf8"
)

// answer queues the replies to one option. An error ends the connection.
func (h *handshake) answer(opt uint32) error {
	if stop, err := h.checkTLS(opt); stop || err != nil {
		return err
	}
	if h.data == nil {
		if opt == optExportName {
			return errors.New("the export name is too long")
		}
		h.refuse(opt, repErrTooBig, "option data may be %d bytes at most", maxOption)
		return nil
	}
	switch opt {
	case optExportName:
		return h.exportName()
	case optAbort:
		h.reply(opt, repAck)
		h.finished = true
	case optList:
		h.list()
	case optStartTLS:
		return h.startTLS()
	case optInfo, optGo:
		return h.info(opt)
	case optStructuredReply:
		h.structuredReply()
	case optExtendedHeaders:
		h.extendedHeaders()
	case optListMetaContext, optSetMetaContext:
		h.metaContext(opt)
	default:
		h.refuse(opt, repErrUnsup, "option %d is not known", opt)
	}
	return nil
}

// checkTLS holds back everything that must not happen without TLS. stop says that the option is answered.
func (h *handshake) checkTLS(opt uint32) (stop bool, err error) {
	if h.c.srv.cfg.TLSMode != TLSRequire || h.tls || opt == optStartTLS || opt == optAbort {
		return false, nil
	}
	// Neither an EXPORT_NAME nor a client without fixed newstyle can be told that TLS is missing.
	if opt == optExportName || h.flags&flagFixedNewstyle == 0 {
		return true, errors.New("the client did not start TLS, which is required")
	}
	h.refuse(opt, repErrTLSReqd, "this server requires TLS")
	return true, nil
}

// noData refuses an option that has data where none belongs.
func (h *handshake) noData(opt uint32) bool {
	if len(h.data) == 0 {
		return true
	}
	h.refuse(opt, repErrInvalid, "option %d takes no data", opt)
	return false
}

func (h *handshake) list() {
	if !h.noData(optList) {
		return
	}
	for _, info := range h.c.srv.cfg.Catalog.List() {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(info.Name)))
		// The description may be left out. Clients without fixed newstyle are old and simple enough to
		// take it for further names.
		if h.flags&flagFixedNewstyle == 0 {
			info.Description = ""
		}
		h.reply(optList, repServer, n[:], []byte(info.Name), []byte(info.Description))
	}
	h.reply(optList, repAck)
}

func (h *handshake) structuredReply() {
	switch {
	case !h.noData(optStructuredReply):
	case h.sess.extended:
		h.refuse(optStructuredReply, repErrExtHeaderReqd, "extended headers are in use")
	default:
		h.sess.structured = true
		h.reply(optStructuredReply, repAck)
	}
}

func (h *handshake) extendedHeaders() {
	if h.noData(optExtendedHeaders) {
		h.sess.extended = true
		h.reply(optExtendedHeaders, repAck)
	}
}

// open opens an export. Where it cannot it returns the option reply that says why.
func (h *handshake) open(name string) (e Export, rep uint32, err error) {
	if !validString(name) {
		return nil, repErrInvalid, errors.New("the export name is not a valid string")
	}
	e, err = h.c.srv.cfg.Catalog.Open(name, h.c.client)
	switch {
	case err == nil:
		return e, 0, nil
	case errors.Is(err, ErrUnknownExport):
		return nil, repErrUnknown, fmt.Errorf("there is no export %q", name)
	case errors.Is(err, syscall.ESHUTDOWN):
		return nil, repErrShutdown, err
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return nil, repErrPolicy, err
	}
	h.c.log.Warn("nbd: opening an export failed", "export", name, "err", err)
	return nil, repErrUnknown, err
}

// validString says whether the protocol allows s.
func validString(s string) bool {
	if len(s) > maxString || !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
	}
	return true
}

// describe is what e says about itself, or else what it was opened as.
func describe(e Export, name string) ExportInfo {
	if d, ok := e.(Described); ok {
		return d.Info()
	}
	return ExportInfo{Name: name}
}

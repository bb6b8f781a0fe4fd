package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unicode/utf8"

	"lsad/internal/nbdproto"
)

// answer queues the replies to one option. An error ends the connection.
func (h *handshake) answer(opt uint32) error {
	if stop, err := h.checkTLS(opt); stop || err != nil {
		return err
	}
	if h.data == nil {
		if opt == nbdproto.OptExportName {
			return errors.New("the export name is too long")
		}
		h.refuse(opt, nbdproto.RepErrTooBig, "option data may be %d bytes at most", maxOption)
		return nil
	}
	switch opt {
	case nbdproto.OptExportName:
		return h.exportName()
	case nbdproto.OptAbort:
		h.reply(opt, nbdproto.RepAck)
		h.finished = true
	case nbdproto.OptList:
		h.list()
	case nbdproto.OptStartTLS:
		return h.startTLS()
	case nbdproto.OptInfo, nbdproto.OptGo:
		return h.info(opt)
	case nbdproto.OptStructuredReply:
		h.structuredReply()
	case nbdproto.OptExtendedHeaders:
		h.extendedHeaders()
	case nbdproto.OptListMetaContext, nbdproto.OptSetMetaContext:
		h.metaContext(opt)
	default:
		h.refuse(opt, nbdproto.RepErrUnsup, "option %d is not known", opt)
	}
	return nil
}

// checkTLS holds back everything that must not happen without TLS. stop says that the option is answered.
func (h *handshake) checkTLS(opt uint32) (stop bool, err error) {
	if h.c.srv.cfg.TLSMode != TLSRequire || h.tls || opt == nbdproto.OptStartTLS || opt == nbdproto.OptAbort {
		return false, nil
	}
	// Neither an EXPORT_NAME nor a client without fixed newstyle can be told that TLS is missing.
	if opt == nbdproto.OptExportName || h.flags&nbdproto.FlagFixedNewstyle == 0 {
		return true, errors.New("the client did not start TLS, which is required")
	}
	h.refuse(opt, nbdproto.RepErrTLSReqd, "this server requires TLS")
	return true, nil
}

// noData refuses an option that has data where none belongs.
func (h *handshake) noData(opt uint32) bool {
	if len(h.data) == 0 {
		return true
	}
	h.refuse(opt, nbdproto.RepErrInvalid, "option %d takes no data", opt)
	return false
}

func (h *handshake) list() {
	if !h.noData(nbdproto.OptList) {
		return
	}
	for _, info := range h.c.srv.cfg.Catalog.List() {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(info.Name)))
		// The description may be left out. Clients without fixed newstyle are old and simple enough to
		// take it for further names.
		if h.flags&nbdproto.FlagFixedNewstyle == 0 {
			info.Description = ""
		}
		h.reply(nbdproto.OptList, nbdproto.RepServer, n[:], []byte(info.Name), []byte(info.Description))
	}
	h.reply(nbdproto.OptList, nbdproto.RepAck)
}

func (h *handshake) structuredReply() {
	switch {
	case !h.noData(nbdproto.OptStructuredReply):
	case h.sess.extended:
		h.refuse(nbdproto.OptStructuredReply, nbdproto.RepErrExtHeaderReqd, "extended headers are in use")
	default:
		h.sess.structured = true
		h.reply(nbdproto.OptStructuredReply, nbdproto.RepAck)
	}
}

func (h *handshake) extendedHeaders() {
	if h.noData(nbdproto.OptExtendedHeaders) {
		h.sess.extended = true
		h.reply(nbdproto.OptExtendedHeaders, nbdproto.RepAck)
	}
}

// open opens an export. Where it cannot it returns the option reply that says why.
func (h *handshake) open(name string) (e Export, rep uint32, err error) {
	if !validString(name) {
		return nil, nbdproto.RepErrInvalid, errors.New("the export name is not a valid string")
	}
	e, err = h.c.srv.cfg.Catalog.Open(name, h.c.client)
	switch {
	case err == nil:
		return e, 0, nil
	case errors.Is(err, ErrUnknownExport):
		return nil, nbdproto.RepErrUnknown, fmt.Errorf("there is no export %q", name)
	case errors.Is(err, syscall.ESHUTDOWN):
		return nil, nbdproto.RepErrShutdown, err
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return nil, nbdproto.RepErrPolicy, err
	}
	h.c.log.Warn("nbd: opening an export failed", "export", name, "err", err)
	return nil, nbdproto.RepErrUnknown, err
}

// validString says whether the protocol allows s.
func validString(s string) bool {
	if len(s) > nbdproto.MaxString || !utf8.ValidString(s) {
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

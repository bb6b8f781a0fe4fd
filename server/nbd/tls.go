package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"lsad/internal/nbdproto"
)

// LoadTLS reads a server's certificate (with its chain) and key from PEM files. With a clientCA, also a PEM
// file, clients must present a certificate that one of its authorities signed.
func LoadTLS(certFile, keyFile, clientCA string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", certFile, keyFile, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if clientCA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("TLS client authorities: %w", err)
	}
	cfg.ClientCAs = x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS client authorities: %s holds no certificate in PEM form", clientCA)
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}

// startTLS answers STARTTLS, and after an ACK goes on over TLS.
func (h *handshake) startTLS() error {
	cfg := &h.c.srv.cfg
	switch {
	case cfg.TLSMode == TLSOff:
		h.refuse(nbdproto.OptStartTLS, nbdproto.RepErrPolicy, "TLS is not configured on this server")
		return nil
	case h.flags&nbdproto.FlagFixedNewstyle == 0:
		h.refuse(nbdproto.OptStartTLS, nbdproto.RepErrPolicy, "TLS needs fixed newstyle negotiation")
		return nil
	case h.tls:
		h.refuse(nbdproto.OptStartTLS, nbdproto.RepErrInvalid, "TLS is in use already")
		return nil
	case !h.noData(nbdproto.OptStartTLS):
		return nil
	}
	h.reply(nbdproto.OptStartTLS, nbdproto.RepAck)
	if err := h.send(); err != nil {
		return err
	}
	below := h.c.sock
	if h.c.tls = newTLSSocket(h.c.sock); h.c.tls != nil {
		below = h.c.tls
	}
	t := tls.Server(below, cfg.TLS)
	// The deadline of the whole negotiation, set on the socket, holds here too.
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	h.c.nc, h.tls = t, true
	h.c.client.TLS = true
	if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
		h.c.client.Name = certs[0].Subject.CommonName
	}
	h.c.public.Store(&publicState{client: h.c.client})
	// What was negotiated in the clear is void: someone in between may have put it there.
	h.sess, h.metaFor = session{}, ""
	return nil
}

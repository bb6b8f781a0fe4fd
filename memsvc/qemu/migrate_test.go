package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// fakeSource is the QEMU of a VM whose RAM is a shared file: its monitor, and the stream that migrate sends.
type fakeSource struct {
	t     testing.TB
	state *State
	roms  *memFile
	file  string
	share bool
	kvm   bool
	fault string // command that fails, or "cut", "failed"
	ends  bool   // it ends where a command fails
	// stops, if not nil, is awaited before the stream goes on behind its head and the VM stops.
	stops <-chan struct{}

	mu        sync.Mutex
	bandwidth int64
	status    string
	migrated  string
	caps      map[string]bool
	log       []string
}

func newFakeSource(t testing.TB, s *State, roms *memFile, file string) *fakeSource {
	return &fakeSource{t: t, state: s, roms: roms, file: file, share: true, status: "running", bandwidth: 77,
		caps: map[string]bool{ignoreShared: false, "postcopy-ram": true, "events": false}}
}

// monitor connects to the fake's monitor.
func (f *fakeSource) monitor() *qmp.Client {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	go func() {
		defer l.Close()
		if conn, err := l.Accept(); err == nil {
			f.serve(conn)
		}
	}()
	c, err := qmp.Dial(f.t.Context(), "unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (f *fakeSource) serve(conn net.Conn) {
	defer conn.Close()
	enc, dec := json.NewEncoder(conn), json.NewDecoder(conn)
	enc.Encode(map[string]any{"QMP": map[string]any{}})
	for {
		var q struct {
			Execute   string          `json:"execute"`
			Arguments json.RawMessage `json:"arguments"`
			ID        int             `json:"id"`
		}
		if dec.Decode(&q) != nil {
			return
		}
		f.mu.Lock()
		f.log = append(f.log, q.Execute)
		result, err := f.execute(q.Execute, q.Arguments)
		f.mu.Unlock()
		if err != nil && f.ends {
			return
		}
		if err != nil {
			enc.Encode(map[string]any{"id": q.ID, "error": map[string]string{"class": "GenericError", "desc": err.Error()}})
			continue
		}
		if q.Execute == "migrate" {
			enc.Encode(map[string]any{"event": "STOP", "timestamp": map[string]int64{"seconds": time.Now().Unix()}})
		}
		enc.Encode(map[string]any{"id": q.ID, "return": result})
	}
}

func (f *fakeSource) execute(command string, arguments json.RawMessage) (any, error) {
	none := map[string]any{}
	if command == f.fault {
		return nil, errScript
	}
	switch command {
	case "qmp_capabilities", "migrate_cancel":
		return none, nil
	case "query-status":
		return map[string]string{"status": f.status}, nil
	case "query-memdev":
		return []map[string]any{{"id": "other"}, {"id": "mem0", "share": f.share}}, nil
	case "qom-get":
		if strings.Contains(string(arguments), "/objects/mem0") {
			return f.file, nil
		}
		return nil, errors.New("no such property")
	case "query-migrate-capabilities":
		var all []capability
		for name, on := range f.caps {
			all = append(all, capability{name, on})
		}
		return all, nil
	case "migrate-set-capabilities":
		var q struct{ Capabilities []capability }
		if err := json.Unmarshal(arguments, &q); err != nil {
			return nil, err
		}
		for _, c := range q.Capabilities {
			f.caps[c.Name] = c.On
		}
		return none, nil
	case "migrate":
		var q struct{ URI string }
		if err := json.Unmarshal(arguments, &q); err != nil {
			return nil, err
		}
		f.migrated = "active"
		go f.send(strings.TrimPrefix(q.URI, "unix:"))
		return none, nil
	case "query-migrate-parameters":
		return map[string]int64{maxBandwidth: f.bandwidth}, nil
	case "migrate-set-parameters":
		var q map[string]int64
		if err := json.Unmarshal(arguments, &q); err != nil {
			return nil, err
		}
		f.bandwidth = q[maxBandwidth]
		return none, nil
	case "query-migrate":
		return map[string]string{"status": f.migrated}, nil
	case "query-kvm":
		return map[string]bool{"enabled": f.kvm, "present": true}, nil
	case "stop":
		f.status = "paused"
		return none, nil
	case "cont":
		f.status = "running"
		return none, nil
	}
	return nil, errors.New("the command is not known")
}

// send is the stream, without the RAM that is the file.
func (f *fakeSource) send(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.Close()
	w := &streamWriter{ram: 2}
	w.head(f.state)
	w.u8(typeSubsection)
	w.name(capabilitiesSection)
	w.u32(1)
	w.u32(1)
	w.name(ignoreShared)
	ignoring := *f.state
	ignoring.IgnoresShared = true
	w.start(&ignoring)
	w.endPart()
	if f.stops != nil {
		conn.Write(w.p)
		w.p = nil
		<-f.stops
	}
	w.part(typeSectionEnd)
	w.pages(f.state.Blocks[1], f.roms)
	w.endPart()
	w.tail(f.state)
	stop, status := len(w.p), "completed"
	switch f.fault {
	case "cut":
		stop, status = stop/2, "failed"
	case "failed":
		status = "failed"
	}
	f.mu.Lock()
	if f.fault != "cut" {
		f.status = "postmigrate"
	}
	f.migrated = status
	f.mu.Unlock()
	conn.Write(w.p[:stop])
}

func (f *fakeSource) did(command string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.log, command)
}

// migrateRig is a source, a destination and the options that join them.
type migrateRig struct {
	src *fakeSource
	dst *fakeDest
	ram *memFile
	o   MigrateOptions
}

func newRig(t *testing.T) *migrateRig {
	t.Helper()
	s := testState()
	s.Blocks[0].Name = "mem0"
	ram := testRAM(s, 11)
	path := filepath.Join(t.TempDir(), "mem0")
	if err := os.WriteFile(path, ram.data[:s.Blocks[0].Size], 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	socket := filepath.Join(t.TempDir(), "state")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r := &migrateRig{src: newFakeSource(t, s, ram, path), dst: newFakeDest(t, s), ram: ram}
	r.dst.early["pc.bios"] = true
	r.o = MigrateOptions{RAM: file, Monitor: r.src.monitor(), Listener: l, URI: "unix:" + socket, Dial: r.dst.dial}
	return r
}

func TestMigrate(t *testing.T) {
	r := newRig(t)
	found := make(chan struct{})
	r.dst.wants = []pageRange{{100, 1}}
	r.o.FreePages = func(ctx context.Context, free func(off, n int64)) error {
		// While it looks, only what is asked for is sent.
		for len(r.dst.came()) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond)
		if n := len(r.dst.came()); n != 1 {
			t.Errorf("%d pages were sent before it was known which are free", n)
		}
		free(200*PageSize, 50*PageSize)
		free(299*PageSize+1, PageSize) // not a whole page of the file
		free(-PageSize, PageSize/2)
		close(found)
		return nil
	}
	m, err := Migrate(t.Context(), r.o)
	if err != nil {
		t.Fatal(err)
	}
	<-found
	clear(r.ram.data[200*PageSize : 250*PageSize])
	if !bytes.Equal(r.dst.ram, r.ram.data) {
		t.Error("the RAM differs")
	}
	if m.Owner != Destination || m.Phase != Complete || m.Elided != 50 || m.ElideError != nil {
		t.Errorf("%+v", m)
	}
	if r.src.did("cont") {
		t.Error("the source was told to run on")
	}
}

// TestMigratePreparesFirst holds that the VM runs until the destination has accepted it, and that what it waits for is
// told apart.
func TestMigratePreparesFirst(t *testing.T) {
	r := newRig(t)
	r.dst.prepared = make(chan struct{})
	r.dst.wants = []pageRange{{100, 1}}
	r.src.stops = r.dst.prepared
	m, err := Migrate(t.Context(), r.o)
	if err != nil || !bytes.Equal(r.dst.ram, r.ram.data) {
		t.Fatal(err)
	}
	if s := m.Stood; s.Saved <= 0 || s.Sent < s.Saved || s.Confirmed < s.Sent || s.Loaded < s.Confirmed || s.Asked < s.Confirmed {
		t.Errorf("%+v", s)
	}
}

// TestLimit holds that a destination which says nothing is given up, and is not once the limit was lifted.
func TestLimit(t *testing.T) {
	for _, lifted := range []bool{false, true} {
		a, b := pair(t)
		l := newLimit(t.Context(), a)
		if lifted {
			if err := l.lift(); err != nil {
				t.Fatal(err)
			}
			b.Close()
		} else {
			l.within(time.Millisecond)
		}
		_, err := a.Read(make([]byte, 1))
		if err = l.cause(err); errors.Is(err, errSilent) == lifted || err == nil {
			t.Errorf("lifted %v: %v", lifted, err)
		}
		if err := l.lift(); (err == nil) != lifted {
			t.Errorf("lifted %v, again: %v", lifted, err)
		}
		l.end()
	}
}

// TestMigrateFails holds who has the VM after each failure, and that the source runs again if and only if it is the
// source.
func TestMigrateFails(t *testing.T) {
	tests := []struct {
		name   string
		change func(*migrateRig)
		owner  Owner
		cont   bool
		text   string
	}{
		{"paused", func(r *migrateRig) { r.src.status = "paused" }, Source, false, "paused"},
		{"not shared", func(r *migrateRig) { r.src.share = false }, Source, false, "share=on"},
		{"another file", func(r *migrateRig) { r.src.file = "/dev/null" }, Source, false, "memory-backend-file"},
		{"no capabilities", func(r *migrateRig) { r.src.fault = "migrate-set-capabilities" }, Source, false, "script"},
		{"migrate refused", func(r *migrateRig) { r.src.fault = "migrate" }, Source, true, "script"},
		{"source ends", func(r *migrateRig) { r.src.fault, r.src.ends = "migrate", true }, Nobody, false, "source's QEMU has ended"},
		{"source ends while it is asked", func(r *migrateRig) { r.src.fault, r.src.ends = "query-memdev", true }, Nobody, false, "source's QEMU has ended"},
		{"stream cut", func(r *migrateRig) { r.src.fault = "cut" }, Source, true, "too early"},
		{"source fails at the end", func(r *migrateRig) { r.src.fault = "failed" }, Source, true, "failed"},
		{"nobody there", func(r *migrateRig) {
			r.o.Dial = func(context.Context) (net.Conn, error) { return nil, errScript }
		}, Source, false, "connect"},
		{"refused at once", func(r *migrateRig) { r.dst.dieAt = "header" }, Source, true, "did not take"},
		{"refused the RAM", func(r *migrateRig) { r.dst.dieAt = "ram" }, Source, true, "did not take"},
		{"refused before the state", func(r *migrateRig) { r.dst.dieAt = "prepared" }, Source, true, "did not take"},
		{"refused the state", func(r *migrateRig) { r.dst.dieAt = "package" }, Destination, false, "cancel"},
		{"lost with the state", func(r *migrateRig) { r.dst.dieAt = "loaded" }, Destination, false, "cancel"},
		{"lost with pages", func(r *migrateRig) { r.dst.dieAt, r.dst.diePages = "pages", 9 }, Destination, false, "cancel"},
		{"refused in the end", func(r *migrateRig) { r.dst.shutWith = 1 }, Destination, false, "refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			test.change(r)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.o.Progress = func(p Progress) {
				if p.Phase == Paused {
					cancel()
				}
			}
			m, err := Migrate(ctx, r.o)
			if err == nil || !strings.Contains(err.Error(), test.text) || m.Owner != test.owner {
				t.Errorf("owner %s, %v", m.Owner, err)
			}
			if r.src.did("cont") != test.cont {
				t.Errorf("cont: %v; the monitor got %v", !test.cont, r.src.log)
			}
			if r.dst.runs() && m.Owner == Source {
				t.Error("the VM runs twice")
			}
			if test.owner == Source && (r.src.caps[ignoreShared] || !r.src.caps["postcopy-ram"]) {
				t.Errorf("capabilities were not put back: %v", r.src.caps)
			}
		})
	}
}

// TestMigrateEnded holds that a destination that has ended ends the migration, and that the source is left alone.
func TestMigrateEnded(t *testing.T) {
	r := newRig(t)
	r.dst.dieAt, r.dst.diePages = "pages", 9 // which are sent once it runs
	first := r.o.Dial
	r.o.Dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := first(ctx)
		first = func(context.Context) (net.Conn, error) { return nil, ErrEnded }
		return conn, err
	}
	if m, err := Migrate(t.Context(), r.o); !errors.Is(err, ErrEnded) || m.Owner != Nobody || r.src.did("cont") {
		t.Errorf("%s, %v, %v", m.Owner, err, r.src.log)
	}
}

// TestDestinationComplete holds that a destination which has everything ends the search for it: well, if all of it came
// from here. Without that, the VM is another's, perhaps.
func TestDestinationComplete(t *testing.T) {
	s := testState()
	d := newFakeDest(t, s)
	d.dieAt = "end"
	first := d.dial
	complete := func(ctx context.Context) (net.Conn, error) {
		conn, err := first(ctx)
		first = func(context.Context) (net.Conn, error) { return nil, ErrComplete }
		return conn, err
	}
	p, err := restoreTo(t, d, testRAM(s, 8), func(o *RestoreOptions) { o.Dial = complete })
	if err != nil || p.Phase != Complete || p.Losses != 1 {
		t.Errorf("the connection was lost at the end: %+v, %v", p, err)
	}
	p, err = restoreTo(t, d, testRAM(s, 8), func(o *RestoreOptions) { o.Dial, o.Resume = complete, true })
	if !errors.Is(err, ErrComplete) || p.Owner != Destination {
		t.Errorf("resumed: %+v, %v", p, err)
	}
}

// TestMigrateCancelled holds that the end of the context before RUN gives the VM back.
func TestMigrateCancelled(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.o.Progress = func(p Progress) {
		if p.Phase == Preparing {
			cancel()
		}
	}
	m, err := Migrate(ctx, r.o)
	if !errors.Is(err, context.Canceled) || m.Owner != Source || !r.src.did("cont") {
		t.Errorf("%s, %v, %v", m.Owner, err, r.src.log)
	}
}

// TestMigrateResume holds that another process can go on after the one that moved the VM has died.
func TestMigrateResume(t *testing.T) {
	r := newRig(t)
	r.dst.dieAt, r.dst.diePages = "pages", 9
	ctx, cancel := context.WithCancel(t.Context())
	r.o.Progress = func(p Progress) {
		if p.Phase == Paused {
			cancel()
		}
	}
	if _, err := Migrate(ctx, r.o); err == nil {
		t.Fatal("it should have been cancelled")
	}
	r.o.Progress, r.o.Resume, r.o.Listener, r.o.Monitor = nil, true, nil, r.src.monitor()
	m, err := Migrate(t.Context(), r.o)
	if err != nil || m.Owner != Destination || !bytes.Equal(r.dst.ram, r.ram.data) {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestMigrateResumeFails holds who has the VM when another process cannot go on: not this side, unless it runs here.
func TestMigrateResumeFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*fakeSource)
		owner  Owner
		text   string
	}{
		{"another file", func(f *fakeSource) { f.file = "/dev/null" }, Destination, "memory-backend-file"},
		{"source ends", func(f *fakeSource) { f.fault, f.ends = "query-memdev", true }, Destination, "closed the monitor"},
		{"paused", func(f *fakeSource) { f.status = "paused" }, Destination, "postmigrate"},
		{"running", func(f *fakeSource) { f.status = "running" }, Source, "postmigrate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.src.status, r.o.Resume = "postmigrate", true
			test.change(r.src)
			m, err := Migrate(t.Context(), r.o)
			if err == nil || !strings.Contains(err.Error(), test.text) || m.Owner != test.owner || m.Ran != (test.owner == Destination) {
				t.Errorf("owner %s, ran: %v, %v", m.Owner, m.Ran, err)
			}
		})
	}
}

// TestSend holds that a VM that was told to save itself runs on if that fails, that its settings come back, and that it
// stands still from the beginning if it is emulated.
func TestSend(t *testing.T) {
	for i, fault := range []string{"", "migrate", "failed", "migrate-set-parameters", "", "migrate", "query-kvm", "stop"} {
		r := newRig(t)
		r.src.fault, r.src.kvm = fault, i < 4
		go func() {
			if conn, err := r.o.Listener.Accept(); err == nil {
				io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		sending, err := Send(t.Context(), r.o.Monitor, r.o.URI)
		if err == nil {
			err = sending.Finish(t.Context())
			if err != nil {
				if back := sending.GiveBack(t.Context()); back != nil {
					t.Error(back)
				}
			}
		}
		r.o.Listener.Close()
		if (err == nil) != (fault == "") || r.src.did("cont") != (fault != "") {
			t.Errorf("with fault %q: %v; the monitor got %v", fault, err, r.src.log)
		}
		if r.src.bandwidth != 77 && fault != "migrate-set-parameters" || !r.src.caps["postcopy-ram"] {
			t.Errorf("with fault %q the settings are %d, %v", fault, r.src.bandwidth, r.src.caps)
		}
		if want := !r.src.kvm && fault != "query-kvm"; r.src.did("stop") != want || sending != nil && sending.Emulated != want {
			t.Errorf("with fault %q, KVM %v: the monitor got %v", fault, r.src.kvm, r.src.log)
		}
	}
}

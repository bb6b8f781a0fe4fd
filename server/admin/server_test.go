package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testToken = "0123456789abcdef"

// start serves a fake array on a unix socket, with every right, and returns its client.
func start(t *testing.T, f *fakeArray) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := New(Config{Array: f, Collector: f, Token: testToken}).HTTP(Access{Changes: true, Debug: true})
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return NewClient("unix", path, "")
}

func TestVolumeLife(t *testing.T) {
	f := &fakeArray{}
	c := start(t, f)
	ctx := t.Context()
	check := func(v Volume, err error) Volume {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := check(c.CreateVolume(ctx, "a", 4096, 2)); v.Name != "a" || v.SizeBytes != 4096 || v.Copies != 2 {
		t.Errorf("created %+v", v)
	}
	if v := check(c.ResizeVolume(ctx, "a", 8192, false)); v.SizeBytes != 8192 {
		t.Errorf("resized %+v", v)
	}
	if v := check(c.RenameVolume(ctx, "a", "b")); v.Name != "b" {
		t.Errorf("renamed %+v", v)
	}
	if v := check(c.Snapshot(ctx, "b", "s1")); len(v.Snapshots) != 1 || v.Snapshots[0].Name != "s1" {
		t.Errorf("snapshot %+v", v)
	}
	if v := check(c.Clone(ctx, "b", "s1", "c")); v.Origin != "b@s1" {
		t.Errorf("clone %+v", v)
	}
	check(c.Revert(ctx, "b", "s1"))
	if err := c.DeleteSnapshot(ctx, "b", "s1"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteVolume(ctx, "c"); err != nil {
		t.Error(err)
	}
	if want := []string{"revert b s1", "delete b@s1", "delete c"}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %q, want %q", f.calls, want)
	}
	all, err := c.Volumes(ctx)
	if err != nil || len(all) != 2 {
		t.Errorf("volumes %+v, %v", all, err)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	c := start(t, &fakeArray{})
	ctx := t.Context()
	if _, err := c.CreateVolume(ctx, "a", 4096, 1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		do   func() error
		want Code
		text string
	}{
		{"missing", func() error { _, err := c.Volume(ctx, "none"); return err }, CodeNotFound, "volume none: not found"},
		{"twice", func() error { _, err := c.CreateVolume(ctx, "a", 1, 1); return err }, CodeExists, "exists"},
		{"busy", func() error { return c.DeleteVolume(ctx, "busy") }, CodeInUse, "10.0.0.1"},
		{"bare", func() error { return c.DeleteVolume(ctx, "broken") }, CodeInternal, "a bare error"},
		{"odd name", func() error { _, err := c.Volume(ctx, "a/../b?c%2f"); return err }, CodeNotFound, "a/../b?c%2f"},
		{"unknown device", func() error { return c.GCRun(ctx, "dev9") }, CodeNotFound, "dev9"},
	} {
		err := tt.do()
		if CodeOf(err) != tt.want || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v (code %s), want code %s and %q", tt.what, err, CodeOf(err), tt.want, tt.text)
		}
	}
}

func TestNoServer(t *testing.T) {
	for _, c := range []*Client{
		NewClient("unix", filepath.Join(t.TempDir(), "none.sock"), ""),
		NewClient("tcp", "127.0.0.1:1", ""),
	} {
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoServer) {
			t.Errorf("%s: %v, want ErrNoServer", c.where, err)
		}
	}
}

func TestAccess(t *testing.T) {
	create := `{"name":"a","size_bytes":4096}`
	for _, tt := range []struct {
		what, serverToken, sent string
		access                  Access
		method, path, body      string
		want                    int
	}{
		{"reading needs no token", testToken, "", Access{}, "GET", "/v1/volumes", "", 200},
		{"no token configured", "", "", Access{}, "POST", "/v1/volumes", create, 403},
		{"an empty token is no token", "", "Bearer ", Access{}, "POST", "/v1/volumes", create, 403},
		{"no token sent", testToken, "", Access{}, "POST", "/v1/volumes", create, 401},
		{"wrong token", testToken, "Bearer wrong", Access{}, "POST", "/v1/volumes", create, 401},
		{"token without its scheme", testToken, testToken, Access{}, "POST", "/v1/volumes", create, 401},
		{"right token", testToken, "Bearer " + testToken, Access{}, "POST", "/v1/volumes", create, 200},
		{"a scheme in lower case is the same", testToken, "bearer " + testToken, Access{}, "POST", "/v1/volumes", create, 200},
		{"another scheme", testToken, "Basic " + testToken, Access{}, "POST", "/v1/volumes", create, 401},
		{"delete without token", testToken, "", Access{}, "DELETE", "/v1/volumes/a", "", 401},
		{"private socket", "", "", Access{Changes: true}, "POST", "/v1/volumes", create, 200},
		{"pprof on the private socket", "", "", Access{Debug: true}, "GET", "/debug/pprof/cmdline", "", 200},
		{"pprof elsewhere", testToken, "Bearer " + testToken, Access{Changes: true}, "GET", "/debug/pprof/cmdline", "", 404},
	} {
		h := New(Config{Array: &fakeArray{}, Token: tt.serverToken}).Handler(tt.access)
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		if tt.sent != "" {
			r.Header.Set("Authorization", tt.sent)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: status %d, want %d: %s", tt.what, w.Code, tt.want, w.Body)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := New(Config{Array: &fakeArray{}}).Handler(Access{Changes: true})
	for _, tt := range []struct {
		method, path, body string
		status             int
		code               Code
	}{
		{"GET", "/v2/volumes", "", 404, CodeNotFound},
		{"GET", "/v1/gc", "", 404, CodeNotFound}, // no collector
		{"PUT", "/v1/volumes", "", 405, CodeMethod},
		{"POST", "/v1/volumes", "", 400, CodeInvalid},
		{"POST", "/v1/volumes", "[]", 400, CodeInvalid},
		{"POST", "/v1/volumes", `{"name":"a","size":5}`, 400, CodeInvalid},
		{"POST", "/v1/volumes", `{"name":"a","size_bytes":4096} x`, 400, CodeInvalid},
		{"POST", "/v1/volumes", `{"name":"a","size_bytes":1e30}`, 400, CodeInvalid},
		{"POST", "/v1/volumes", `{"name":"` + strings.Repeat("a", maxBody) + `"}`, 400, CodeInvalid},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		var body errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("%s %s: %v in %q", tt.method, tt.path, err, w.Body)
		}
		if w.Code != tt.status || body.Error.Code != tt.code || body.Error.Message == "" {
			t.Errorf("%s %s %.40s: status %d, %+v; want %d, %s", tt.method, tt.path, tt.body, w.Code, body.Error, tt.status, tt.code)
		}
	}
}

func TestHealth(t *testing.T) {
	f := &fakeArray{}
	h := New(Config{Array: f}).Handler(Access{})
	for _, sick := range []error{nil, errors.New("device dev1: sync failed")} {
		f.sick = sick
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if sick == nil && w.Code != 200 || sick != nil && (w.Code != 503 || !strings.Contains(w.Body.String(), sick.Error())) {
			t.Errorf("health of %v: %d %s", sick, w.Code, w.Body)
		}
	}
}

func TestGC(t *testing.T) {
	f := &fakeArray{}
	c := start(t, f)
	all, err := c.GCStatus(t.Context())
	if err != nil || len(all) != 1 || all[0].Totals.Early != 3 {
		t.Errorf("status %+v, %v", all, err)
	}
	if err := c.GCRun(t.Context(), "dev0"); err != nil {
		t.Error(err)
	}
	if _, err := c.GCSet(t.Context(), GCChange{Device: "dev0", Set: map[string]string{"low": "5"}}); err != nil {
		t.Error(err)
	}
	if len(f.changes) != 1 || f.changes[0].Device != "dev0" || f.changes[0].Set["low"] != "5" {
		t.Errorf("changes %+v", f.changes)
	}
}

func TestStatusAtRoot(t *testing.T) {
	w := httptest.NewRecorder()
	New(Config{Array: &fakeArray{}}).Handler(Access{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var s Status
	text, _ := io.ReadAll(w.Body)
	if err := json.Unmarshal(text, &s); err != nil || s.Version != "test" || w.Code != http.StatusOK {
		t.Errorf("%d %s: %v", w.Code, text, err)
	}
}

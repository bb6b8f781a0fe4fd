package main

import (
	"strings"
	"testing"
)

// TestShow: reasons of skipped tests and all of failed ones are there, and what passed says nothing but that it took long.
func TestShow(t *testing.T) {
	in := `{"Action":"output","Package":"p","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"    a_test.go:1: noise\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":19.9}
{"Action":"pass","Package":"p","Test":"TestSlow/part","Elapsed":20.3}
{"Action":"output","Package":"p","Test":"TestAway","Output":"=== RUN   TestAway\n"}
{"Action":"output","Package":"p","Test":"TestAway","Output":"    a_test.go:2: no such driver\n"}
{"Action":"output","Package":"p","Test":"TestAway","Output":"--- SKIP: TestAway (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestAway"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    a_test.go:3: wrong\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestHung","Output":"panic: test timed out\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: syntax error\n"}
words of another program
{"Action":"output","Package":"r","Output":"PASS\n"}
{"Action":"output","Package":"r","Output":"ok  \tr\t0.1s\n"}
{"Action":"pass","Package":"r"}
`
	want := `long    p TestSlow/part: 20 s
skipped p TestAway: a_test.go:2: no such driver
    a_test.go:3: wrong
--- FAIL: TestBad (0.00s)
FAIL	p	0.1s
panic: test timed out
q.go:1: syntax error
words of another program
ok  	r	0.1s
`
	var out strings.Builder
	if err := show(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

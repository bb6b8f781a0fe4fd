// Command testlog reads what "go test -json" prints and shows what a reader of a build's log wants to know: a line for
// each package, all that a failed test said, why tests were skipped, and which took long. Plain "go test" hides the
// reasons, and with -v they drown. It says nothing of success itself: that is the exit code of go test.
//
//	go test -json ./... | go run ./tools/testlog
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one of those that "go doc test2json" describes.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// long is from how many seconds on a test is listed: what a shorter run would have to begin with.
const long = 20

func main() {
	if err := show(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(1)
	}
}

// show copies what matters from in to out as it comes.
func show(in io.Reader, out io.Writer) error {
	said := map[[2]string]*strings.Builder{} // by package and test, while it runs
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // not of a test
			continue
		}
		test := [2]string{e.Package, e.Test}
		switch {
		case e.Action == "build-output":
			fmt.Fprint(out, e.Output)
		case e.Action == "output" && e.Test != "":
			if said[test] == nil {
				said[test] = &strings.Builder{}
			}
			said[test].WriteString(e.Output)
		case e.Action == "output":
			if e.Output != "PASS\n" {
				fmt.Fprint(out, e.Output)
			}
		case e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			if s := said[test]; s != nil && e.Action != "pass" {
				fmt.Fprint(out, told(s.String(), e))
			}
			delete(said, test)
			if e.Elapsed >= long {
				fmt.Fprintf(out, "long    %s %s: %.0f s\n", e.Package, e.Test, e.Elapsed)
			}
		case e.Action == "fail": // a package: what its tests said that never ended
			for t, s := range said {
				if t[0] == e.Package {
					fmt.Fprint(out, s)
					delete(said, t)
				}
			}
		}
	}
	return lines.Err()
}

// told is what a test said, and of one that was skipped the reason alone.
func told(s string, e event) string {
	if e.Action != "skip" {
		return s
	}
	var reason []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			reason = append(reason, line)
		}
	}
	return fmt.Sprintf("skipped %s %s: %s\n", e.Package, e.Test, strings.Join(reason, "; "))
}

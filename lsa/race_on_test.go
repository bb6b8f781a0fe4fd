//go:build race

package lsa

import "testing"

// underRace is how many times fewer a test repeats what runs beside what: the
// race detector sees it the first time, and is as many times as slow.
const underRace = 3

// oneByOne leaves out a test that damages something and sees that it is noticed, many
// times over: what runs beside what in it does so in other tests too.
func oneByOne(t *testing.T) {
	t.Helper()
	t.Skip("one thing after the other: nothing for the race detector that other tests do not have")
}

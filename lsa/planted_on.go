//go:build lsad_planted

package lsa

import "sync/atomic"

var broken atomic.Int32

// Plant breaks one rule of the array, by name, until it is called with "". It
// returns false if there is no such rule.
func Plant(name string) bool {
	if name == "" {
		broken.Store(0)
		return true
	}
	for i, n := range rules {
		if n == name {
			broken.Store(int32(i))
			return true
		}
	}
	return false
}

// Rules returns the names of the rules that Plant can break.
func Rules() []string { return rules[1:] }

func planted(r rule) bool { return rule(broken.Load()) == r }

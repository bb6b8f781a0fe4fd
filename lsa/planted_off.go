//go:build !lsad_planted

package lsa

// planted says whether a rule is to be broken on purpose. Only builds with the
// lsad_planted tag, which test the crash explorer, can break any.
func planted(rule) bool { return false }

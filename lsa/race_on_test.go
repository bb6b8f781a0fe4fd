//go:build race

package lsa

// underRace is how many times fewer a test repeats what runs beside what: the
// race detector sees it the first time, and is as many times as slow.
const underRace = 3

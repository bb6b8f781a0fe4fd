//go:build !race

package lsa

const underRace = 1

//go:build !race

package lsa

import "testing"

const underRace = 1

func oneByOne(*testing.T) {}

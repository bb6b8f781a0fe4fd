//go:build !race

package main

const race = false

// raceFlag has the program under test built as the tests are.
const raceFlag = "-race=false"

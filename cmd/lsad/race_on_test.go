//go:build race

package main

const race = true

// raceFlag has the program under test built as the tests are.
const raceFlag = "-race=true"

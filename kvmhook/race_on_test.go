//go:build race

package kvmhook

const raceDetector = true

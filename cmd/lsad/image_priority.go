package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// migrationNice is the nice value of a process for which a VM stands still, now and at each page that it touches.
const migrationNice = -15

// walkNice is that of the threads that look for free pages meanwhile. They would keep the destination from its work where
// that is on the same machine, just when it begins to run.
const walkNice = 5

// raisePriority has this process get a processor before others, if it may (CAP_SYS_NICE). Threads that come later have it
// of those that make them.
func raisePriority() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // it works without, only later on a busy machine
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, migrationNice) // as above
		}
	}
}

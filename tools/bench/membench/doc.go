// Package membench measures the page server (kvmhook) beside a bare handler that copies pages from a mapped file, and
// beside a plain mapping of that file. The VMM is a process of its own (kvmhook/vmmtest), which takes the times.
package membench

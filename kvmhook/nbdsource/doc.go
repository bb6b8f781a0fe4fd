// Package nbdsource reads an image from an NBD server for kvmhook, through outages.
//
// It owns several connections to one export. The first is for reads that a guest waits for, the others for the rest,
// so that a page is never behind a megabyte. A connection that fails is made anew, with growing pauses, for as long as
// Options.Timeout says; meanwhile reads wait. An export that came back with another size is not the image any more.
//
// Locks: Source.mu and link.mu, never together, neither held across I/O.
package nbdsource

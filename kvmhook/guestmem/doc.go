// Package guestmem finds out which pages of a paused Linux guest were free, from
// nothing but the guest's memory: no agent in the guest, no device, no change to
// the virtual machine monitor.
//
// # How free pages are found
//
// Linux keeps a note, VMCOREINFO, for those who look at the memory of a kernel
// that has crashed. [FreePages] finds it, takes from it where the kernel's page
// tables, its memory map and its zones are and what they look like, walks over
// the memory map (one struct page per page of RAM) and collects the blocks that
// the page allocator has marked as free. It works on x86-64, with four and five
// levels of page tables and wherever the kernel was loaded.
//
// # When the result is believed
//
// Memory holds leftovers: notes of an earlier boot, of a nested guest, of a crash
// dump in a file. A note counts only if
//
//   - all that it says is possible, and the page tables map the kernel's own top
//     table to where the note says it is;
//   - a processor's CR3, where the caller knows it, leads to the same places;
//   - every free block has a possible order, alignment and place;
//   - the blocks are as many, order by order, as the zones count on their free
//     lists, but for one per zone that was on its way when the guest was paused;
//   - no page on which all this rests (the note, page tables, memory map, zones) is
//     itself free.
//
// If several notes pass they must agree. If none passes, or the guest poisons its
// free pages and would notice that they are gone, there is no set: the caller then
// leaves out pages of zeros only. To be wrong in that direction costs space; in
// the other it would cost the guest's data.
//
// # What it may touch
//
// Guest memory is read, never written, from files that belong to others, in
// order where all pages are visited and else through a mapping: what is read from it is checked before it is used, every loop is bounded
// by the size of RAM or by a constant, and a file that is shortened meanwhile is an
// error, not a crash. Holes of the file are left out where all pages are visited.
//
// # Concurrency
//
// FreePages runs as many goroutines as there are processors and waits for them.
// [Memory] does not change and may be shared. There is one lock, blocks.mu, which
// guards counters for the length of an addition; [PageSet.Add] and
// [PageSet.Remove] are atomic.
package guestmem

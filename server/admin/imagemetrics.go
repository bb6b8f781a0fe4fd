package admin

var (
	descImages       = desc("images", "Images of VM memory, forks not counted.")
	descForks        = desc("image_forks", "Writable clones of images.")
	descImageRAM     = desc("image_ram_bytes", "RAM of the VMs whose memory the images have.")
	descImageStored  = desc("image_stored_bytes", "Bytes that the images take by themselves.")
	descImports      = desc("image_imports_total", "Imports of images that ended, by how.", "result")
	descImporting    = desc("image_imports_active", "Imports of images under way.")
	descImportStored = desc("image_imported_bytes_total", "Memory of completed imports, by what became of it: stored, or elided as free in the guest or as zeros.", "fate")
)

func (m emitter) images(all []Image, c ImageCounters) {
	var forks int
	var ram, stored int64
	for _, i := range all {
		if i.Writable {
			forks++
		}
		ram += i.RAMBytes
		stored += i.StoredBytes
	}
	m.gauge(descImages, float64(len(all)-forks))
	m.gauge(descForks, float64(forks))
	m.gauge(descImageRAM, float64(ram))
	m.gauge(descImageStored, float64(stored))
	m.counter(descImports, float64(c.Imports), "completed")
	m.counter(descImports, float64(c.Failed), "failed")
	m.gauge(descImporting, float64(c.Active))
	for fate, n := range map[string]int64{"stored": c.StoredBytes, "free": c.FreeBytes, "zero": c.ZeroBytes} {
		m.counter(descImportStored, float64(n), fate)
	}
}

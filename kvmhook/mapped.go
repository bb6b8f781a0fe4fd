package kvmhook

// Mapped is a Source whose content lies in the memory of this process: it is installed from where it lies.
type Mapped interface {
	Source
	// Bytes of the whole image. A part that cannot be read any more is an error of the kernel, and counts as lost.
	Bytes() []byte
}

// view is the content of [first, last) where the source is mapped, and nil elsewhere.
func (s *session) view(m *mapping, first, last int) []byte {
	if s.mapped == nil {
		return nil
	}
	return s.mapped[m.imageOffset(first):][:int64(last-first)*m.page]
}

package memsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// stateChunk is how much device state is written at a time, in bytes.
const stateChunk = 1 << 20

// WriteState stores the device state: all that r has, at most MaxState bytes. It can be called once. It ends with ctx
// between two chunks, since the store does not look at ctx and the state may be large.
func (w *Writer) WriteState(ctx context.Context, r io.Reader) error {
	st := State{Offset: w.ram}
	sum := sha256.New()
	buf := make([]byte, stateChunk)
	for {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("image %q: device state: %w", w.name, err)
		}
		n, err := io.ReadFull(r, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("image %q: device state: %w", w.name, err)
		}
		if n == 0 {
			break
		}
		if st.Length+int64(n) > MaxState {
			return fmt.Errorf("image %q: %w: device state of more than %d bytes", w.name, ErrInvalid, int64(MaxState))
		}
		_, _ = sum.Write(buf[:n]) // a hash takes everything
		if err := w.appendState(ctx, buf[:n], st.Length); err != nil {
			return fmt.Errorf("image %q: device state: %w", w.name, err)
		}
		st.Length += int64(n)
		if err != nil {
			break
		}
	}
	if st.Length > 0 {
		st.SHA256 = hex.EncodeToString(sum.Sum(nil))
		w.manifest.State = st
	}
	return nil
}

func (w *Writer) appendState(ctx context.Context, data []byte, at int64) error {
	padded := data
	if rest := len(data) % PageSize; rest > 0 {
		padded = append(slices.Clone(data), make([]byte, PageSize-rest)...)
	}
	off := w.ram + at
	if err := w.s.store.Resize(ctx, w.hidden, off+int64(len(padded)), false); err != nil {
		return err
	}
	errs := make([]error, 1)
	w.volume.WriteBatch([]int64{off}, [][]byte{padded}, errs)
	return errs[0]
}

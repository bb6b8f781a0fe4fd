package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// errImage means that a file is not a kernel image as we know them.
var errImage = errors.New("not a kernel image of a known kind")

// Offsets in a bzImage's real-mode header, from the Linux x86 boot protocol
// (Documentation/arch/x86/boot.rst), version 2.08 and up.
const (
	setupSectsOffset    = 0x1f1 // byte: 512-byte sectors of set-up code
	headerMagicOffset   = 0x202
	headerVersionOffset = 0x206
	payloadOffsetOffset = 0x248 // u32, from the end of the set-up code
	payloadLengthOffset = 0x24c // u32
	headerEnd           = 0x250
)

// maxVmlinux bounds what a compressed kernel may expand to, in bytes.
const maxVmlinux = 512 << 20

// zstdMagic begins a zstd frame (RFC 8878, section 3.1.1).
const zstdMagic = "\x28\xb5\x2f\xfd"

// extractVmlinux writes the ELF kernel inside a bzImage to another file. One
// that is compressed otherwise than with zstd is copied as it is: QEMU starts
// it too, a second or two slower.
func extractVmlinux(bzImage, vmlinux string) error {
	raw, err := os.ReadFile(bzImage)
	if err != nil {
		return err
	}
	payload, err := kernelPayload(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", bzImage, err)
	}
	if !strings.HasPrefix(string(payload), zstdMagic) {
		return os.WriteFile(vmlinux, raw, 0o644)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxVmlinux))
	if err != nil {
		return err
	}
	defer dec.Close()
	kernel, err := dec.DecodeAll(payload, nil)
	if err != nil {
		return fmt.Errorf("%s: decompress: %w: %w", bzImage, errImage, err)
	}
	if _, err := elf.NewFile(bytes.NewReader(kernel)); err != nil {
		return fmt.Errorf("%s: payload: %w: %w", bzImage, errImage, err)
	}
	return os.WriteFile(vmlinux, kernel, 0o644)
}

// kernelPayload returns the compressed kernel inside a bzImage.
func kernelPayload(raw []byte) ([]byte, error) {
	if len(raw) < headerEnd || string(raw[headerMagicOffset:headerMagicOffset+4]) != "HdrS" {
		return nil, fmt.Errorf("no boot header: %w", errImage)
	}
	if v := binary.LittleEndian.Uint16(raw[headerVersionOffset:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %#x says nothing of a payload: %w", v, errImage)
	}
	start := (int64(raw[setupSectsOffset])+1)*512 + int64(binary.LittleEndian.Uint32(raw[payloadOffsetOffset:]))
	length := int64(binary.LittleEndian.Uint32(raw[payloadLengthOffset:]))
	// The payload's last four bytes are its expanded size, not data.
	if length < 4 || start+length > int64(len(raw)) {
		return nil, fmt.Errorf("payload of %d bytes at %d in a file of %d: %w", length, start, len(raw), errImage)
	}
	return raw[start : start+length-4], nil
}

package config

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Size
		err  string // part of the message
	}{
		{"10GiB", 10 * GiB, ""},
		{"512M", 512 * MiB, ""},
		{"512m", 512 * MiB, ""},
		{" 4 kib ", 4 * KiB, ""},
		{"1", 1, ""},
		{"4096B", 4096, ""},
		{"7EiB", 7 * EiB, ""},
		{"9223372036854775807", 1<<63 - 1, ""},
		{"8EiB", 0, "too large"},
		{"9223372036854775808", 0, "too large"},
		{"99999999999999999999999GiB", 0, "too large"},
		{"0", 0, "above zero"},
		{"0GiB", 0, "above zero"},
		{"-1GiB", 0, "above zero"},
		{"1.5GiB", 0, "whole number"},
		{"10GB", 0, "write GiB"},
		{"10X", 0, "unknown unit"},
		{"GiB", 0, "want a number"},
		{"", 0, "want a number"},
		{"1 2GiB", 0, "want a number"},
		{"0x10", 0, "want a number"},
		{"+5G", 0, "want a number"},
	} {
		got, err := ParseSize(tt.text)
		if tt.err == "" {
			if err != nil || got != tt.want {
				t.Errorf("ParseSize(%q) = %d, %v; want %d", tt.text, got, err, tt.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) || !errors.Is(err, ErrUsage) {
			t.Errorf("ParseSize(%q) = %d, %v; want an ErrUsage with %q", tt.text, got, err, tt.err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"10GiB", "512M", "0", "-1", "9223372036854775807", "1.5G", "8EiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if n <= 0 {
			t.Fatalf("ParseSize(%q) = %d", text, n)
		}
		if again, err := ParseSize(n.String()); err != nil || again != n {
			t.Fatalf("ParseSize(%q) = %d, but its String %q gives %d, %v", text, n, n.String(), again, err)
		}
	})
}

func TestHuman(t *testing.T) {
	for want, n := range map[string]Size{"0 B": 0, "4.0 KiB": 4096, "1.5 GiB": 1536 * MiB, "1023 B": 1023,
		"1025 MiB": 1025 * MiB, "9.5 GiB": 9728 * MiB, "1.0 GiB": GiB + 1, "10.0 GiB": 10*GiB + MiB, "2049 GiB": 2049 * GiB, "1.3 MiB": 1300 * KiB} {
		if got := n.Human(); got != want {
			t.Errorf("Size(%d).Human() = %q, want %q", n, got, want)
		}
	}
}

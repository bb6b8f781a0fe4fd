// Package packaging holds what an installation needs beside the program: units for systemd and an example of
// the settings. Its tests hold that they are valid; there is no code.
package packaging

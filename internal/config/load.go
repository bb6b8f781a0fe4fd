package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load is the effective configuration: defaults, then the file (if path is not empty), then the
// flags that were given. Every error about a setting Is ErrUsage.
func Load(path string, given *pflag.FlagSet) (*Config, error) {
	c := Default()
	if path != "" {
		text, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("config file: %w", err)
		}
		if err := c.Decode(text); err != nil {
			return nil, Usagef("config file %s: %v", path, err)
		}
	}
	if given != nil {
		if err := c.override(given); err != nil {
			return nil, err
		}
	}
	return c, c.Validate()
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return string(text), err
}

// Decode takes over what a file's text sets. A key that does not exist is named with its line and
// the nearest key that does.
func (c *Config) Decode(text string) error {
	meta, err := toml.Decode(text, c)
	if err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			return Usagef("line %d: %s", parse.Position.Line, strings.TrimPrefix(parse.Message, "toml: "))
		}
		return Usagef("%s", plainType(strings.TrimPrefix(err.Error(), "toml: ")))
	}
	unknown := meta.Undecoded()
	if len(unknown) == 0 {
		return nil
	}
	var lines []string
	for _, key := range unknown {
		if len(key) > 1 && contains(unknown, key[:len(key)-1]) {
			continue // its table was named already
		}
		lines = append(lines, unknownKey(text, key))
	}
	return Usagef("%s", strings.Join(lines, "; "))
}

// wrongType is how the decoder tells of a value of another kind than the setting's.
var wrongType = regexp.MustCompile(`incompatible types: TOML value has type (\S+); destination has type (\S+)`)

// kinds are the decoder's words for kinds of values, in plain ones.
var kinds = map[string]string{
	"string": `text in quotes, such as "x"`, "slice": `a list, such as ["x"]`, "array": `a list, such as ["x"]`,
	"bool": "true or false", "boolean": "true or false", "int64": "a number", "integer": "a number", "float64": "a number with a fraction",
	"map": "a table", "table": "a table",
}

// plainType says what kind of value a setting wants.
func plainType(message string) string {
	m := wrongType.FindStringSubmatch(message)
	if m == nil || kinds[m[1]] == "" || kinds[m[2]] == "" {
		return message
	}
	return strings.Replace(message, m[0], fmt.Sprintf("it wants %s, and is %s", kinds[m[2]], kinds[m[1]]), 1)
}

func contains(keys []toml.Key, key toml.Key) bool {
	for _, k := range keys {
		if k.String() == key.String() {
			return true
		}
	}
	return false
}

func unknownKey(text string, key toml.Key) string {
	name := key.String()
	var where string
	if line := lineOf(text, key); line > 0 {
		where = fmt.Sprintf("line %d: ", line)
	}
	if near := Nearest(name, Keys()); near != "" {
		return fmt.Sprintf("%sunknown key %q; did you mean %q?", where, name, near)
	}
	return fmt.Sprintf("%sunknown key %q; lsad serve --print-config shows those that exist", where, name)
}

// Keys are the names of all settings, in the order of Config.
func Keys() []string {
	t := reflect.TypeFor[Config]()
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("toml")
	}
	return keys
}

// lineOf finds the line, counted from 1, where the key is set or its table begins, or 0. The decoder does not
// tell, so this looks for the key's last part at the start of a line; it serves a message only.
func lineOf(text string, key toml.Key) int {
	last := key[len(key)-1]
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		line = strings.TrimLeft(line, `["'`)
		for _, part := range []string{last, key.String()} {
			rest, ok := strings.CutPrefix(line, part)
			if ok && (rest == "" || strings.ContainsRune(" \t=\"'].", rune(rest[0]))) {
				return i + 1
			}
		}
	}
	return 0
}

// Nearest is the candidate with the fewest edits from s, or "" if none is near enough to be meant.
func Nearest(s string, candidates []string) string {
	best, at := "", max(2, len(s)/3)+1
	s = strings.ReplaceAll(strings.ToLower(s), "_", "-")
	for _, c := range candidates {
		if d := distance(s, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

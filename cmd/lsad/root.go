package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lsad/internal/config"
)

func newRoot() *cobra.Command {
	root := group("lsad", "A storage server: thin volumes in a log-structured array, served over NBD")
	root.Long = `lsad keeps thin block volumes in a log-structured array spread over several devices
and serves them over NBD and ublk, and the memory of virtual machines page by page.

lsad serve starts a server; every other command but check, dump, attach and detach talks to a running one.`
	root.Example = `  lsad serve                          start with defaults, in ./lsad-data
  lsad volume create web 20GiB        make a volume
  lsad status                         see how it is`
	root.Version = version()
	root.SetVersionTemplate("lsad {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(), newVolume(), newDevice(), newGC(), newUblk(), newHook(), newImage(), newAttach(), newDetach(), newCheck(), newScrub(), newDump(), newStatus(), newVersion())
	return root
}

// flagError is what is wrong with a flag, and what may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		var invalid *pflag.InvalidValueError
		var number *strconv.NumError
		if errors.As(err, &invalid) && errors.As(err, &number) {
			return config.Usagef("--%s %s: a whole number is needed", invalid.GetFlag().Name, invalid.GetValue())
		}
		return config.Usagef("%v", err)
	}
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		if short[0] >= '0' && short[0] <= '9' {
			return config.Usagef("-%s: numbers and sizes are above zero", short)
		}
		return config.Usagef("%v", err)
	}
	var flags []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, f.Name) })
	if near := config.Nearest(unknown.GetSpecifiedName(), flags); near != "" {
		return config.Usagef("%v; did you mean --%s?", err, near)
	}
	return config.Usagef("%v", err)
}

// group is a command that only has others below it.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return config.Usagef("%s needs a command: %s", cmd.CommandPath(), strings.Join(names(cmd), ", "))
			}
			hint := "; there are " + strings.Join(names(cmd), ", ")
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("; did you mean %q?", near[0])
			}
			return config.Usagef("unknown command %q for %s%s", args[0], cmd.CommandPath(), hint)
		},
		SuggestionsMinimumDistance: 2,
	}
}

func names(cmd *cobra.Command) []string {
	var all []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && c.Name() != "completion" {
			all = append(all, c.Name())
		}
	}
	return all
}

// takes says which arguments a command takes, by name.
func takes(want ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(want):
			return config.Usagef("%s is missing: %s", want[len(args)], cmd.UseLine())
		case len(args) > len(want):
			return config.Usagef("unexpected argument %q: %s", args[len(want)], cmd.UseLine())
		}
		return nil
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  lsad version",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "lsad %s, %s, %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// release is set by the linker for a released version.
var release string

// version is the release, or the revision that the program was built from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " with changes"
		}
	}
	if revision == "" {
		return "development"
	}
	return revision + changed
}

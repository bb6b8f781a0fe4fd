package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/kvmhook"
)

func newHookStatus(k *hook) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how a running hook is",
		Example: `  lsad hook status --socket /run/vm1.sock
  lsad hook status --socket /run/vm1.sock --json | jq .resident_percent`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if k.socket == "" {
				return config.Usagef("--socket is missing: name the socket that the hook was started with")
			}
			st, err := kvmhook.ReadStatus(cmd.Context(), k.socket+hookStatusSuffix)
			if err != nil {
				return fmt.Errorf("%w; is it running?", err)
			}
			if k.json {
				return printJSON(cmd, st)
			}
			return printHook(cmd.OutOrStdout(), st)
		},
	}
}

// prefetch says how much of it was used, as far as that is known.
func prefetch(p kvmhook.Prefetch) string {
	text := "nothing is known of its use"
	if e := p.Estimate; e != nil {
		text = fmt.Sprintf("%.0f %% used so far (%.0f to %.0f %%), about %s of %s; %d pages held back, %d asked for, %d removed, %d released",
			100*e.UsedShare, 100*e.Low, 100*e.High, size(e.UsedBytes), size(p.Bytes), p.HeldPages, p.UsedPages, p.DroppedPages, p.ReleasedPages)
	}
	if p.NotSampledBytes > 0 {
		text += "; " + size(p.NotSampledBytes) + " of huge pages, of whose use nothing is known"
	}
	return text
}

func printHook(w io.Writer, st kvmhook.Status) error {
	out := newTable(w)
	count := func(n int64) string { return fmt.Sprint(n) }
	source := st.Source.Name
	if st.Source.OutageSeconds > 0 {
		source += ", out of reach for " + seconds(st.Source.OutageSeconds)
	}
	state := string(st.State)
	if st.Kept {
		state += ", kept for another hook"
	}
	if st.Source.DirectBytes > 0 {
		source += ", " + size(st.Source.DirectBytes) + " read past the server"
	}
	out.row("State:", state)
	out.row("Source:", fmt.Sprintf("%s, %d reconnects", source, st.Source.Reconnects))
	if st.State == kvmhook.StateOpening {
		return out.flush()
	}
	out.row("Image:", size(st.ImageBytes))
	if st.State != kvmhook.StateWaiting {
		out.row("Serving for:", seconds(st.ServedSeconds))
		out.row("Memory:", fmt.Sprintf("%s mapped, %s of it has content", size(st.MappedBytes), size(st.ContentBytes)))
		out.row("Resident:", fmt.Sprintf("%s of the content, %.1f %%", size(st.ResidentBytes), st.ResidentPercent))
		out.row("Faults:", strings.Join([]string{count(st.Faults), count(st.ZeroFaults) + " zeros", count(st.FetchedFaults) + " fetched",
			count(st.WaitedFaults) + " under way", count(st.HeldFaults) + " held back", count(st.SpuriousFaults) + " spurious", count(st.LostFaults) + " lost"}, ", "))
		out.row("Installed:", fmt.Sprintf("%s demanded, %s around it, %s filled", size(st.DemandedBytes), size(st.AroundBytes), size(st.FilledBytes)))
		out.row("Prefetch:", prefetch(st.Prefetch))
		out.row("Read:", fmt.Sprintf("%s, %s dropped; %s never have to be", size(st.ReadBytes), size(st.DroppedBytes), size(st.NotTransferredBytes)))
		out.row("Removed:", fmt.Sprintf("%s by the VMM, %s lost", size(st.RemovedBytes), size(st.PoisonedBytes)))
		out.row("Latency:", fmt.Sprintf("half below %d us, 99 of 100 below %d us", st.Latency.QuantileUs(0.5), st.Latency.QuantileUs(0.99)))
	}
	return out.flush()
}

//go:build lsad_planted

package lsa

var rules = []string{
	ruleFlushEveryDevice:     "flush-every-device",
	ruleSyncBeforeCheckpoint: "sync-before-checkpoint",
	ruleReuseAfterCheckpoint: "reuse-after-checkpoint",
	ruleNewGeneration:        "new-generation",
	ruleRaiseEpoch:           "raise-epoch",
	ruleCutAtGap:             "cut-at-gap",
	ruleCheckpointAtCut:      "checkpoint-at-cut",
	ruleMoveChecksLSN:        "move-checks-lsn",
	ruleFailedSyncStays:      "failed-sync-stays",
	ruleFlushSyncs:           "flush-syncs",
	ruleVerifyScannedData:    "verify-scanned-data",
	ruleGapIsDamage:          "gap-is-damage",
	ruleTrimIsLogged:         "trim-is-logged",
	ruleVoidFailedAppend:     "void-failed-append",
	ruleSyncAfterRecovery:    "sync-after-recovery",
	ruleRewriteTail:          "rewrite-tail",
	ruleAckInOrder:           "ack-in-order",
	ruleQuiesceReaders:       "quiesce-readers",
	ruleSnapshotGate:         "snapshot-gate",
	ruleRescueUnsynced:       "rescue-unsynced",
	ruleRememberFailure:      "remember-failure",
	ruleVoidWins:             "void-wins",
	ruleReopenIsDurable:      "reopen-is-durable",
}

package lsa

// rule is one thing that crash safety rests on. The crash explorer is tested
// by breaking each and seeing that it notices.
type rule int32

const (
	_ rule = iota
	ruleFlushEveryDevice
	ruleSyncBeforeCheckpoint
	ruleReuseAfterCheckpoint
	ruleNewGeneration
	ruleRaiseEpoch
	ruleCutAtGap
	ruleCheckpointAtCut
	ruleMoveChecksLSN
	ruleFailedSyncStays
	ruleFlushSyncs
	ruleVerifyScannedData
	ruleGapIsDamage
	ruleTrimIsLogged
	ruleVoidFailedAppend
	ruleSyncAfterRecovery
	ruleRewriteTail
	ruleAckInOrder
	ruleQuiesceReaders
	ruleSnapshotGate
	ruleRescueUnsynced
	ruleRememberFailure
	ruleVoidWins
)

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
}

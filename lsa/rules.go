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
	ruleReopenIsDurable
	// Of whole devices, and of two copies.
	ruleRefuseStale
	ruleGiveUpFirst
	ruleKnowMost
	ruleGapsOfLost
	ruleTrimInTwo
	ruleCatalogInTwo
	ruleCopiesApart
	ruleRepairFromGood
	ruleMoveKeepsOther
	ruleRebuildAll
	ruleEvacuateFirst
	ruleDropBehindCheckpoint
	ruleIntroduceFirst
	ruleVoidAnywhere
	// Of kept views of map pages.
	ruleMovesEndViews
	ruleRememberMoves
	ruleNumbersGoOn
)

.PHONY: run test prove redis-suite bench instructions fuzz soak setup clean

# Builds and starts a server on 127.0.0.1:6379 (PORT=… for another) with data in ./data and backups in ./backups.
run:
	@PORT=$(or $(PORT),6379) exec tests/scripts/run.sh

# Formats, lints and tests at bounded counts; installs what is missing.
test:
	@tests/scripts/test.sh

# The same tests at full counts.
prove:
	@tests/scripts/prove.sh

# Redis's own test suite against cairn-server; FILES="unit/type/list unit/scan" runs only those, MODE=own lets the suite
# start its servers, PEER=/usr/bin/redis-server shows what another server passes.
redis-suite:
	@tests/scripts/redis-suite.sh

# Figures beside redis-server's, or beside PEER=/path/to/valkey-server: under 25 minutes on two cores.
bench:
	@tests/bench/bench.sh

# Instructions per operation beside the baseline in tests/bench/instructions.json; UPDATE=1 rewrites that.
instructions:
	@UPDATE=$(UPDATE) tests/scripts/instructions.sh

# Every fuzz target for FUZZ_SECONDS (60) seconds: by libFuzzer with nightly and cargo-fuzz, else by blind mutation.
fuzz:
	@tests/scripts/fuzz.sh

# The simulation of the whole engine over a faulty disk, optimised, for SEEDS=from..to (1..300000).
soak:
	@tests/scripts/soak.sh

# Installs what the tests need.
setup:
	@tests/scripts/setup.sh

# Removes what was built; data, backups and the keyring stay.
clean:
	@cargo clean

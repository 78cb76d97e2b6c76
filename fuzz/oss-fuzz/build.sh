#!/bin/bash -eu
# Builds every target with its seeds into $OUT; OSS-Fuzz runs it (see Dockerfile).
cd "$SRC/tipserve"
# The runners have no Python: libtorch travels beside the targets.
export RUSTFLAGS="${RUSTFLAGS:-} -Clink-arg=-Wl,-rpath,\$ORIGIN/lib"
cargo fuzz build --release --debug-assertions
python3 fuzz/make_seeds.py
for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
  if [ -d "fuzz/corpus/$target" ]; then
    zip -q -j "$OUT/${target}_seed_corpus.zip" fuzz/corpus/"$target"/*
  fi
done
mkdir -p "$OUT/lib"
libraries=$(python3 -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
cp "$libraries"/libc10.so "$libraries"/libtorch.so "$libraries"/libtorch_cpu.so \
  "$libraries"/libgomp*.so* "$OUT/lib/"

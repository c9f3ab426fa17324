//! libFuzzer's way in: any bytes to the target `ipam_wire`; the body stands in `src/`, so that the replay on stable runs the same.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::run("ipam_wire", bytes));

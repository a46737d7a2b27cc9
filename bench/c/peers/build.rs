//! Compiles ours.c, and keeps the compilers' names for the report.

use std::process::Command;

fn version_of(program: &std::ffi::OsStr) -> String {
    let told = Command::new(program).arg("--version").output();
    let told = told.map_or(String::new(), |told| String::from_utf8_lossy(&told.stdout).into_owned());
    told.lines().next().unwrap_or("unknown").to_owned()
}

fn main() {
    let mut build = cc::Build::new();
    // -O2 and no -march, as the core is built for Python; rustc has no -march either.
    build.file("src/ours.c").include("../../../csrc").std("c11").opt_level(2).debug(false);
    build.flag("-falign-functions=64").flag("-falign-loops=32"); // see .cargo/config.toml
    build.warnings(true).extra_warnings(true).warnings_into_errors(true);
    println!("cargo::rustc-env=PEERS_CC={}", version_of(build.get_compiler().path().as_os_str()));
    println!("cargo::rustc-env=PEERS_RUSTC={}", version_of(&std::env::var_os("RUSTC").unwrap_or_default()));
    build.compile("ours");
    println!("cargo::rerun-if-changed=src/ours.c");
    println!("cargo::rerun-if-changed=../../../csrc");
}

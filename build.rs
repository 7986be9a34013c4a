//! With the `cuda` feature: compiles the kernels under `src/lm/kernels` to PTX, for `CUDA_COMPUTE_CAP` (80 by default) and
//! every later GPU. Needs `nvcc`, of the CUDA toolkit, on the path. Without the feature it does nothing.

#![expect(clippy::expect_used, reason = "a build script ends by saying what it lacks")]

use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "src/lm/kernels";

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-env-changed=CUDA_COMPUTE_CAP");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let entries = std::fs::read_dir(FOLDER).expect("the kernels' folder");
    for source in entries.map(|entry| entry.expect("a file").path()).filter(|path| is_cuda(path)) {
        let ptx = out.join(source.file_stem().expect("a name")).with_extension("ptx");
        let status = Command::new("nvcc")
            .args(["-std=c++17", "-O3", "-ptx", &format!("-arch=compute_{capability}"), "-o"])
            .args([&ptx, &source])
            .status()
            .expect("cannot run nvcc; put the CUDA toolkit's bin folder on the path");
        assert!(status.success(), "nvcc failed on {}", source.display());
    }
}

fn is_cuda(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cu")
}

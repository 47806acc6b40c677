//! Trains GrugV3 models.
fn main() {
    println!("{}", tch::Cuda::is_available());
}

//! Tensors whose memory is mimalloc's.

use tch::{Device, Kind, Tensor};
use tipserve_clip::tensor_memory;

#[test]
fn tensors_are_as_ever_and_one_without_room_is_an_error() {
    let before = Tensor::arange(1000, (Kind::Int64, Device::Cpu));
    tensor_memory::install();
    let after = Tensor::arange(1000, (Kind::Int64, Device::Cpu));
    assert!(before.equal(&after));
    // Aligned as torch's kernels want it, and what is freed may be given back meanwhile.
    for width in [1, 7, 4096, 3 << 20] {
        let tensor = Tensor::ones([width], (Kind::Float, Device::Cpu));
        assert_eq!(tensor.data_ptr() as usize % 64, 0);
        tensor_memory::give_back();
        assert_eq!(tensor.sum(Kind::Double).double_value(&[]), width as f64);
    }
    assert_eq!(Tensor::zeros([0, 5], (Kind::Float, Device::Cpu)).numel(), 0);
    // The words by which a failed load is known as one for want of memory.
    let error = Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu)).expect_err("4 PiB");
    assert!(
        error.to_string().contains("can't allocate memory"),
        "{error}"
    );
}

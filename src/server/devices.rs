//! The devices that encoders run on.

use tipserve_clip::encoder::device_name;

/// The device of heads, training and text: the first.
pub(super) fn first(devices: &[tch::Device]) -> tch::Device {
    devices.first().copied().unwrap_or(tch::Device::Cpu)
}

/// As `GetServerInfo` names them: "cpu", "cuda:0", "cuda:0,1".
pub(super) fn devices_name(devices: &[tch::Device]) -> String {
    let mut name = device_name(first(devices));
    for device in devices.iter().skip(1) {
        if let tch::Device::Cuda(index) = device {
            name.push_str(&format!(",{index}"));
        }
    }
    name
}

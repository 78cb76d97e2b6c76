"""8-bit archives beside a bundle's float ones, for CPUs that multiply 8-bit integers fast."""

// What the headers of a current libstdc++ and glibc call, and the libraries of RHEL 8's time lack.
// Linked into the binary, as Red Hat's libstdc++_nonshared.a is by its gcc-toolset.

#include <new>
#include <sstream>

namespace std {

// GLIBCXX_3.4.29
void __throw_bad_array_new_length() { throw bad_array_new_length(); }

// GLIBCXX_3.4.26: the constructor without arguments.
template class basic_ostringstream<char>;

}  // namespace std

// glibc 2.32: whether there is one thread alone, so that counters need not be atomic. Never.
extern "C" {
char __libc_single_threaded = 0;
}

# SPDX-License-Identifier: Apache-2.0
"""Networks behind an address: a page for people, HTTP for programs, one accelerator behind both.

A request's way: `app` takes it, `photos` or `protocol` make pixels of its body, `engine` runs them on the
target, `answers` says what came of it, and `page` or `protocol` write that down. What people teach a network
is in `lessons`, whose routes are in `teach`.
"""

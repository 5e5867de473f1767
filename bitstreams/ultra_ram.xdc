# SPDX-License-Identifier: Apache-2.0
# Token and residual memory in UltraRAM: as block RAM they would not fit beside the weight memory.
set_property RAM_STYLE ULTRA [get_cells -hierarchical -filter \
    {NAME =~ */u_tokens/*/mem_reg* || NAME =~ */u_residual/*/mem_reg*}]

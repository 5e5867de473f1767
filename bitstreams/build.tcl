# SPDX-License-Identifier: Apache-2.0
# Builds one overlay: vivado -mode batch -source build.tcl -tclargs DESIGN WORK STRATEGY JOBS
#   DESIGN    the dictionary that build.py writes from boards and hardware configuration
#   WORK      directory of the project; takes utilisation.rpt, timing.rpt and result.txt, which has lines of a
#             key and a value; and rowvit.bit and rowvit.hwh, if timing is met
#   STRATEGY  of implementation
#   JOBS      processes
set here [file dirname [file normalize [info script]]]

# What build.py shows; the rest is in the log.
proc stage {text} {
    puts "rowvit: $text"
    flush stdout
}

proc run {name args} {
    launch_runs $name {*}$args
    wait_on_run $name
    set run [get_runs $name]
    if {[get_property PROGRESS $run] ne "100%"} {
        set log [file join [get_property DIRECTORY $run] runme.log]
        error "$name ended with '[get_property STATUS $run]'; see $log"
    }
}

proc build {design_file work strategy jobs} {
    source [file join $::here block_design.tcl]
    set channel [open $design_file]
    set design [read $channel]
    close $channel

    # The versions for which this was written; others have other IP and may still do.
    set oldest 2022.1
    set newest 2025.2
    set version [version -short]
    set series [join [lrange [split $version .] 0 1] .]
    if {[package vcompare $series $oldest] < 0 || [package vcompare $series $newest] > 0} {
        stage "warning: this is Vivado $version; the scripts were written for $oldest to $newest"
    }

    stage "project"
    set part [dict get $design part]
    if {[llength [get_parts -quiet $part]] == 0} {
        error "this Vivado has no part $part; add its device family in the Vivado installer"
    }
    if {[dict get $design board_files] ne ""} {
        set_param board.repoPaths [dict get $design board_files]
    }
    create_project rowvit [file join $work project] -part $part -force
    set board_parts [get_board_parts -quiet [dict get $design board_part]]
    set board_part [lindex [lsort -dictionary $board_parts] end]
    set preset [expr {$board_part ne ""}]
    if {$preset} {
        set_property board_part $board_part [current_project]
    } elseif {[llength [dict get $design settings]] > 0} {
        stage "warning: no board file [dict get $design board_part]; boards.toml instead"
    } else {
        error "this Vivado has no board file [dict get $design board_part], which sets the processor's PLLs;\
            install it (Vivado Store, Boards), or name its directory: BOARD_FILES=/path"
    }
    add_files -norecurse [dict get $design sources]
    set_property include_dirs [dict get $design include] [current_fileset]
    if {[dict get $design ip] ne ""} {
        set_property ip_repo_paths [dict get $design ip] [current_project]
        update_ip_catalog
    }
    update_compile_order -fileset sources_1

    stage "block design"
    create_block_design $design $preset
    set system [get_files system.bd]
    set_property synth_checkpoint_mode None $system
    generate_target all $system
    make_wrapper -files $system -top -import
    set_property top system_wrapper [current_fileset]
    update_compile_order -fileset sources_1
    set hz [get_property CONFIG.FREQ_HZ [pin [dict get $design clock]]]

    stage "synthesis"
    run synth_1 -jobs $jobs
    if {[dict get $design ultra_ram]} {
        open_run synth_1
        if {[llength [get_cells -quiet -hierarchical -filter {REF_NAME == URAM288}]] == 0} {
            error "synthesis made no UltraRAM of token and residual memory, whose RAM_STYLE is ultra: as\
                block RAM they do not fit; see [file join $work project rowvit.runs synth_1 runme.log]"
        }
        close_design
    }

    stage "placement and routing"
    set_property strategy $strategy [get_runs impl_1]
    run impl_1 -jobs $jobs
    open_run impl_1
    report_utilization -file [file join $work utilisation.rpt]
    report_timing_summary -file [file join $work timing.rpt]
    set setup [get_property STATS.WNS [get_runs impl_1]]
    set hold [get_property STATS.WHS [get_runs impl_1]]
    if {![string is double -strict $setup] || ![string is double -strict $hold]} {
        error "the design has no constrained paths; see [file join $work timing.rpt]"
    }
    if {$hold < 0} {
        error "hold times are not met: slack $hold ns, at any clock; use another STRATEGY, and see\
            [file join $work timing.rpt]"
    }
    if {$setup >= 0} {
        stage "bitstream"
        run impl_1 -to_step write_bitstream -jobs $jobs
        set directory [get_property DIRECTORY [get_runs impl_1]]
        file copy -force [file join $directory system_wrapper.bit] [file join $work rowvit.bit]
        set directory [file join $work project rowvit.gen sources_1 bd system hw_handoff]
        file copy -force [file join $directory system.hwh] [file join $work rowvit.hwh]
    }
    set channel [open [file join $work result.txt] w]
    foreach key {version board_part hz setup hold} {
        puts $channel "$key [set $key]"
    }
    close $channel
    stage "done"
}

if {[catch {build {*}$argv} message options]} {
    puts [dict get $options -errorinfo]
    stage "error: [join [split $message \n]]"
    exit 1
}

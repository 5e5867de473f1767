# SPDX-License-Identifier: Apache-2.0
# Builds one overlay. build.py writes the description of it, block_design.tcl and this as one script:
#   vivado -mode batch -source build.tcl
# The script's directory takes rowvit.bit, rowvit.hwh, rowvit.dcp, utilisation.rpt, timing.rpt and
# result.txt, which has lines of a key and a value. Of the strategies of implementation one after the other
# is tried until one meets the clock, and the fastest is taken.
cd [file dirname [file normalize [info script]]]

# What build.py shows; the rest is in the log.
proc stage {text} {
    puts "rowvit: $text"
    flush stdout
}

# Ends the build, or this implementation where others follow: a smaller design may do.
proc no_room {message} {
    return -code error -errorcode NO_ROOM $message
}

proc run {name args} {
    launch_runs $name {*}$args
    # in newer versions the wait for a run that failed is an error of its own, without the step
    catch {wait_on_run $name}
    set run [get_runs $name]
    if {[get_property PROGRESS $run] ne "100%"} {
        set log [file join [get_property DIRECTORY $run] runme.log]
        set status [get_property STATUS $run]
        set message "$name ended with '$status'; see $log"
        if {[string match place_design* $status] || [string match route_design* $status]} {
            no_room $message
        }
        error $message
    }
}

# Setup (max) or hold (min) slack of the open design, in ns.
proc slack {delay} {
    return [get_property SLACK [found "timing path" [get_timing_paths -delay_type $delay -max_paths 1]]]
}

# The core's clock in the open design: the processing system's first, by the pin that it comes from.
proc core_clock {} {
    set clocks {}
    foreach clock [get_clocks] {
        if {[string match {*CLK\[0\]} [lindex [get_property SOURCE_PINS $clock] 0]]} {
            lappend clocks $clock
        }
    }
    if {[llength $clocks] != 1} {
        error "of the design's clocks ([get_clocks]), [llength $clocks] are the processing system's first"
    }
    return [lindex $clocks 0]
}

# Constrain the core's clock to another rate. What the processing system's own constraints say of its jitter
# is a share of the period. A clock that is created anew takes the old one's place, and its name.
proc constrain {mhz} {
    set clock [core_clock]
    set name [get_property NAME $clock]
    set pins [get_pins [get_property SOURCE_PINS $clock]]
    set old [get_property PERIOD $clock]
    set jitter [get_property INPUT_JITTER $clock]
    set period [expr {floor(1e6 / $mhz) / 1e3}]
    create_clock -name $name -period $period $pins
    if {$jitter > 0} {
        set_input_jitter [get_clocks $name] [format %.3f [expr {$jitter * $period / $old}]]
    }
}

# The fastest of the processor's clocks that the open, routed design meets, in MHz, or 0. What is routed for
# one clock is the design for a slower one too: it has no path between clocks, and the processor's clock is
# not part of the bitstream.
proc reachable {design mhz} {
    set setup [slack max]
    if {$setup >= 0} {
        return $mhz
    }
    set period [expr {1e3 / $mhz - $setup}]
    foreach slower [dict get $design clocks] {
        if {$slower >= $mhz || 1e3 / $slower < $period} {
            continue
        }
        constrain $slower
        if {[slack max] >= 0} {
            return $slower
        }
    }
    return 0
}

# One implementation; leaves it as rowvit.dcp if it is faster than $best MHz. Returns its clock, the
# slack at the clock that was asked for, and the strategy; or nothing if it is not faster.
proc implement {design strategy jobs hz best} {
    set run [get_runs impl_1]
    if {[get_property PROGRESS $run] ne "0%"} {
        reset_run impl_1
    }
    set_property strategy $strategy $run
    run impl_1 -jobs $jobs
    set unrouted [get_property STATS.FAILED_NETS $run]
    if {$unrouted > 0} {
        no_room "routing ended with $unrouted nets that have no way"
    }
    set missed [get_property STATS.WNS $run]
    set hold [get_property STATS.WHS $run]
    if {![string is double -strict $missed] || ![string is double -strict $hold]} {
        error "the design has no constrained paths; see [get_property DIRECTORY $run]"
    }
    if {$hold < 0} {
        no_room "hold times are not met, at any clock: slack $hold ns"
    }
    open_run impl_1
    set mhz [reachable $design [expr {$hz / 1e6}]]
    set result {}
    if {$mhz > $best} {
        write_checkpoint -force rowvit.dcp
        set result [list mhz $mhz missed $missed strategy $strategy]
    }
    close_design
    if {$mhz == 0} {
        no_room "setup times are not met at any clock: slack $missed ns"
    }
    return $result
}

# The processor's clock in the block design, and with it in the .hwh; returns what it makes of it, in Hz.
proc slow_down {design system mhz} {
    open_bd_design $system
    set parameter CONFIG.[dict get $design frequency]
    set_property -dict [list $parameter $mhz] [get_bd_cells [dict get $design processing_system]]
    validate_bd_design
    save_bd_design
    generate_target all $system
    set hz [get_property CONFIG.FREQ_HZ [pin [dict get $design clock]]]
    if {$hz > 1.001e6 * $mhz} {
        error "the processing system makes $hz Hz of the $mhz MHz that the design meets; see pll_mhz in\
            boards.toml"
    }
    return $hz
}

proc build {design} {
    set jobs [dict get $design jobs]
    set strategies [dict get $design strategies]

    # The versions for which this was written; others have other IP and may still do.
    set oldest 2022.1
    set newest 2025.2
    set version [version -short]
    set series 0  ;# patches are named behind the version
    regexp {^\d+\.\d+} $version series
    if {[package vcompare $series $oldest] < 0 || [package vcompare $series $newest] > 0} {
        stage "warning: this is Vivado $version; the scripts were written for $oldest to $newest"
    }

    stage "project"
    set part [dict get $design part]
    if {[llength [get_parts -quiet $part]] == 0} {
        error "this Vivado has no part $part; add its device family in the Vivado installer"
    }
    if {[dict get $design board_files] ne ""} {
        set_param board.repoPaths [list [dict get $design board_files]]
    }
    create_project rowvit project -part $part -force
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
    set sources {}
    foreach file [dict get $design sources] {  ;# up to 2023.2, Vivado's Tcl is 8.5
        lappend sources [file normalize $file]
    }
    add_files -norecurse $sources
    set_property include_dirs [list [file normalize [dict get $design include]]] [current_fileset]
    if {[dict get $design ip] ne ""} {
        set_property ip_repo_paths [list [file normalize [dict get $design ip]]] [current_project]
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
    set fastest [lindex [dict get $design clocks] 0]
    if {$hz < 0.9e6 * $fastest} {
        stage "warning: the processing system makes [expr {$hz / 1e6}] MHz of the $fastest MHz that it could;\
            the overlay will be that much slower"
    }

    stage "synthesis"
    run synth_1 -jobs $jobs
    if {[dict get $design ultra_ram]} {
        open_run synth_1
        set made [llength [get_cells -quiet -hierarchical -filter {REF_NAME == URAM288}]]
        if {$made != [dict get $design ultra_ram]} {
            error "synthesis made $made UltraRAM of token and residual memory where\
                [dict get $design ultra_ram] are expected: as block RAM they do not fit; see\
                project/rowvit.runs/synth_1/runme.log"
        }
        close_design
    }

    set asked [expr {$hz / 1e6}]
    set best {mhz 0}
    foreach strategy $strategies {
        stage "placement and routing: $strategy"
        if {[catch {implement $design $strategy $jobs $hz [dict get $best mhz]} result options]} {
            if {[dict get $options -errorcode] ne "NO_ROOM" || [llength $strategies] == 1} {
                return -options $options $result
            }
            stage "warning: $result"
            continue
        }
        if {$result ne {}} {
            set best $result
        }
        if {[dict get $best mhz] == $asked} {
            break
        }
    }
    if {[dict get $best mhz] == 0} {
        no_room "none of [llength $strategies] strategies of implementation came to an end"
    }
    if {[dict get $best mhz] < $asked} {
        set hz [slow_down $design $system [dict get $best mhz]]
    }
    set directory project/rowvit.gen/sources_1/bd/system/hw_handoff
    file copy -force [file join $directory system.hwh] rowvit.hwh

    # after the .hwh: one that is younger than its bitstream is of another build
    stage "bitstream"
    close_project
    open_checkpoint rowvit.dcp
    report_utilization -file utilisation.rpt
    report_timing_summary -file timing.rpt
    set setup [slack max]
    set hold [slack min]
    write_bitstream -force rowvit.bit
    set channel [open result.txt w]
    foreach key {version board_part asked hz setup hold} {
        puts $channel "$key [set $key]"
    }
    foreach key {missed strategy} {
        puts $channel "$key [dict get $best $key]"
    }
    close $channel
    stage "done"
}

if {[catch {build $description} message options]} {
    puts [dict get $options -errorinfo]
    set kind [expr {[dict get $options -errorcode] eq "NO_ROOM" ? "no room" : "error"}]
    stage "$kind: [join [split $message \n]]"
    exit 1
}

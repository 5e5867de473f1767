# SPDX-License-Identifier: Apache-2.0
# Packs the preprocessor as IP. From an empty directory, with the part and the clock's period in ns:
#   PART=xc7z020clg400-1 PERIOD=6.667 vitis_hls -f build.tcl
#   PART=xc7z020clg400-1 PERIOD=6.667 vitis-run --mode hls --tcl build.tcl       (Vitis 2024.2 and later)
# The IP is then in frontend/solution/impl/ip, the reports in frontend/solution/syn/report.
set here [file dirname [file normalize [info script]]]

proc stage {text} {
    puts "rowvit: $text"
    flush stdout
}

# The kernel is correct at any interval, only slower at a longer one.
proc check_intervals {directory} {
    set loops 0
    foreach report [glob -nocomplain -directory $directory *_csynth.xml] {
        set channel [open $report]
        set text [read $channel]
        close $channel
        foreach {all interval} [regexp -all -inline {<PipelineII>(\d+)</PipelineII>} $text] {
            incr loops
            if {$interval > 1} {
                set module [string map {_csynth.xml ""} [file tail $report]]
                stage "warning: a loop of $module begins every $interval cycles, not every cycle"
            }
        }
    }
    if {$loops == 0} {
        stage "warning: no loop's interval is in the reports in $directory"
    }
}

proc build {part period} {
    stage "HLS project"
    open_project -reset frontend
    add_files [file join $::here frontend.cpp]
    set_top rowvit_frontend
    open_solution -reset solution -flow_target vivado
    set_part $part
    create_clock -period $period -name default
    stage "HLS synthesis"
    csynth_design
    check_intervals [file join frontend solution syn report]
    stage "HLS packaging"
    export_design -rtl verilog -format ip_catalog \
        -vendor rowvit -library hls -ipname rowvit_frontend -version 1.0
    close_project
}

if {[catch {build $env(PART) $env(PERIOD)} message options]} {
    puts [dict get $options -errorinfo]
    stage "error: [join [split $message \n]]"
    exit 1
}
exit 0

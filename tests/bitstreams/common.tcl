# SPDX-License-Identifier: Apache-2.0
# What both stand-ins need.

# What tools of up to 2023.2 do not know: their Tcl is 8.5
proc as_tcl_8_5 {} {
    foreach name {lmap try throw tailcall coroutine yield yieldto zlib} {
        rename $name ""
    }
    foreach {ensemble name} {string cat dict map binary encode binary decode file tempfile chan pipe} {
        set map [namespace ensemble configure $ensemble -map]
        namespace ensemble configure $ensemble -map [dict remove $map $name]
    }
}

proc setting {name default} {
    return [expr {[info exists ::env($name)] ? $::env($name) : $default}]
}

# Checks a call against a table of flags (0: no value, 1: one value)
proc options {command arguments known} {
    set found {}
    set rest {}
    while {[llength $arguments] > 0} {
        set arguments [lassign $arguments word]
        if {[string match -* $word] && ![string is double $word]} {
            if {![dict exists $known $word]} {
                error "$command: unknown option $word"
            }
            if {[dict get $known $word]} {
                if {[llength $arguments] == 0} {
                    error "$command: $word needs a value"
                }
                set arguments [lassign $arguments value]
                dict set found $word $value
            } else {
                dict set found $word 1
            }
        } else {
            lappend rest $word
        }
    }
    return [list $found $rest]
}

proc only {what list} {
    if {[llength $list] != 1} {
        error "expected one $what, got '$list'"
    }
    return [lindex $list 0]
}

proc read_file {path} {
    set channel [open $path]
    set text [read $channel]
    close $channel
    return $text
}

proc write_file {path text} {
    file mkdir [file dirname $path]
    set channel [open $path w]
    puts $channel $text
    close $channel
}

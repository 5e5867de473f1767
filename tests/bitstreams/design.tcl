# SPDX-License-Identifier: Apache-2.0
# The stand-in's block design: IP, cells, wires, addresses, validation.

# The IP in the directories of ip_repo_paths, as their component.xml describes it.
proc update_ip_catalog {args} {
    options update_ip_catalog $args {-rebuild 0}
    foreach directory $::repositories {
        set file [file join $directory component.xml]
        if {![file isfile $file]} {
            error "update_ip_catalog: no IP in $directory"
        }
        set text [read_file $file]
        set words {}
        foreach key {vendor library name version} {
            regexp "<spirit:$key>(\[^<\]*)<" $text all value
            lappend words $value
        }
        set interfaces {}
        set pattern {<spirit:busInterface>\s*<spirit:name>(\w+)</spirit:name>\s*<spirit:(master|slave)/>}
        foreach {all name mode} [regexp -all -inline $pattern $text] {
            dict set interfaces $name [list [dict get {master INITIATOR slave TARGET} $mode] axis]
        }
        dict set ::catalog [join $words :] \
            [dict create parameters {} ports [list packaged_ports $interfaces]]
    }
}

proc packaged_ports {interfaces parameters} {
    return [list $interfaces {ap_clk {I clk} ap_rst_n {I rst}}]
}

# -- cells, wires and addresses
proc create_bd_design {name} {
    need_project
    set ::design $name
}

proc get_ipdefs {args} {
    lassign [options get_ipdefs $args {-all 0 -filter 1}] flags rest
    if {![regexp {^VLNV =~ (\S+)$} [dict get $flags -filter] all pattern] || $rest ne ""} {
        error "get_ipdefs: filter '[dict get $flags -filter]'"
    }
    return [lsearch -all -inline -glob [dict keys $::catalog] $pattern]
}

proc create_bd_cell {args} {
    lassign [options create_bd_cell $args {-type 1 -vlnv 1 -reference 1}] flags rest
    set name [only name $rest]
    if {![regexp {^[A-Za-z]\w*$} $name] || [dict exists $::cells $name]} {
        error "create_bd_cell: name $name"
    }
    switch -- [dict get $flags -type] {
        ip {
            set vlnv [dict get $flags -vlnv]
            if {![dict exists $::catalog $vlnv]} {
                error "create_bd_cell: no IP $vlnv"
            }
            dict set ::cells $name [dict create vlnv $vlnv parameters [dict get $::catalog $vlnv parameters]]
        }
        module {
            set module [dict get $flags -reference]
            lassign [read_module $module] parameters interfaces pins
            dict set ::cells $name [dict create vlnv xilinx.com:module_ref:$module:1.0 \
                parameters $parameters interfaces $interfaces pins $pins]
        }
        default {
            error "create_bd_cell: type [dict get $flags -type]"
        }
    }
    refresh $name
    return $name
}

proc check_parameter {cell name value} {
    if {![dict exists $::cells $cell parameters $name]} {
        error "$cell has no parameter $name"
    }
    if {[dict exists $::legal $name] && $value ni [dict get $::legal $name]} {
        error "$cell: $name = $value; it takes one of [dict get $::legal $name]"
    }
}

# Interfaces and pins follow from parameters.
proc refresh {cell} {
    set vlnv [dict get $::cells $cell vlnv]
    if {[dict exists $::catalog $vlnv]} {
        lassign [{*}[dict get $::catalog $vlnv ports] [dict get $::cells $cell parameters]] interfaces pins
        dict set ::cells $cell interfaces $interfaces
        dict set ::cells $cell pins $pins
    }
}

# Ports and parameters of a Verilog module among the project's files; ports that share a prefix and
# have the names of AXI become interfaces.
proc read_module {module} {
    foreach {file fileset} $::files {
        if {[file tail $file] eq "$module.v" && $fileset eq "sources_1"} {
            set text [read_file $file]
            break
        }
    }
    set pattern "module\\s+$module\\s*#\\((.*?)\\n\\)\\s*\\((.*?)\\n\\);"
    if {![info exists text] || ![regexp $pattern $text all head body]} {
        error "create_bd_cell: no module $module in the project"
    }
    set parameters {}
    set pattern {parameter\s+(?:\[[^\]]*\]\s*)?(\w+)\s*=\s*([^,/\n]+)}
    foreach {all name value} [regexp -all -inline $pattern $head] {
        dict set parameters $name [string trim $value " \""]
    }
    regsub -all {\(\*.*?\*\)} $body "" body
    set ports {}
    set pattern {(input|output)\s+wire\s+(?:\[[^\]]*\]\s*)?(\w+)}
    foreach {all direction name} [regexp -all -inline $pattern $body] {
        dict set ports $name [string index $direction 0]
    }
    set interfaces {}
    set pins {}
    set stream {^(\w+)_(tdata|tvalid|tready|tlast|tkeep)$}
    set memory {^(\w+)_((?:aw|w|b|ar|r)(?:addr|len|size|burst|cache|prot|data|strb|resp|last|valid|ready))$}
    dict for {name direction} $ports {
        if {[regexp $stream $name all prefix signal]} {
            if {$signal eq "tvalid"} {
                dict set interfaces $prefix [list [expr {$direction eq "i" ? "TARGET" : "INITIATOR"}] axis]
            }
        } elseif {[regexp $memory $name all prefix signal]} {
            if {$signal eq "arvalid"} {
                dict set interfaces $prefix [list [expr {$direction eq "i" ? "SLAVE" : "MASTER"}] aximm]
            }
        } else {
            set kind data
            if {$name eq "aclk"} {set kind clk}
            if {$name eq "aresetn"} {set kind rst}
            dict set pins $name [list [string toupper $direction] $kind]
        }
    }
    return [list $parameters $interfaces $pins]
}

proc get_bd_cells {args} {
    lassign [options get_bd_cells $args {-quiet 0}] flags rest
    return [lsearch -all -inline -glob [dict keys $::cells] [string trimleft [only pattern $rest] /]]
}

proc members {what pattern} {
    set found {}
    foreach {cell content} $::cells {
        foreach name [dict keys [dict get $content $what]] {
            if {[string match $pattern $cell/$name]} {
                lappend found $cell/$name
            }
        }
    }
    return $found
}

proc get_bd_pins {args} {
    lassign [options get_bd_pins $args {-quiet 0}] flags rest
    return [members pins [only pattern $rest]]
}

proc get_bd_intf_pins {args} {
    lassign [options get_bd_intf_pins $args {-quiet 0}] flags rest
    return [members interfaces [only pattern $rest]]
}

proc member {what path} {
    lassign [split $path /] cell name
    return [dict get $::cells $cell $what $name]
}

proc connect_bd_net {args} {
    if {[llength $args] < 2} {
        error "connect_bd_net: expected pins"
    }
    set drivers {}
    set loads {}
    foreach pin $args {
        lassign [member pins $pin] direction kind
        if {$direction eq "O"} {lappend drivers $pin} else {lappend loads $pin}
    }
    set driver [only driver $drivers]
    foreach load $loads {
        if {[dict exists $::nets $load]} {
            error "$load has a driver already"
        }
        lassign [member pins $driver] direction drives
        lassign [member pins $load] direction takes
        if {"clk" in [list $drives $takes] && $drives ne $takes} {
            error "$driver and $load: only one of them is a clock"
        }
        if {"rst" in [list $drives $takes] && $drives ne $takes} {
            error "$driver and $load: only one of them is a reset"
        }
        dict set ::nets $load $driver
    }
}

proc connect_bd_intf_net {args} {
    lassign $args first second
    if {[llength $args] != 2} {
        error "connect_bd_intf_net: expected two interfaces"
    }
    lassign [member interfaces $first] kind protocol
    lassign [member interfaces $second] other_kind other_protocol
    if {$protocol ne $other_protocol || "$kind $other_kind" ni {"MASTER SLAVE" "INITIATOR TARGET"}} {
        error "$first ($kind $protocol) cannot be wired to $second ($other_kind $other_protocol)"
    }
    foreach {from to} [list $first $second $second $first] {
        if {[dict exists $::wired $from]} {
            error "$from is wired already"
        }
        dict set ::wired $from $to
    }
}

proc apply_bd_automation {args} {
    lassign [options apply_bd_automation $args {-rule 1 -config 1}] flags rest
    set cell [only cell $rest]
    set ip [lindex [split [dict get $::cells $cell vlnv] :] 2]
    if {[dict get $flags -rule] ne "xilinx.com:bd_rule:$ip"} {
        error "rule [dict get $flags -rule] is not one of $ip"
    }
    foreach {name value} [dict get $flags -config] {
        if {$name ni {make_external apply_board_preset Master Slave}} {
            error "apply_bd_automation: unknown option $name"
        }
    }
    if {[dict get $flags -config apply_board_preset]} {
        if {$::board_part eq ""} {
            error "apply_board_preset without a board file"
        }
        dict set ::cells $cell preset 1
        dict for {name value} [dict get $::presets $ip] {
            set_one CONFIG.$name $value $cell
        }
    }
    dict set ::cells $cell automated 1
}

proc get_bd_addr_spaces {args} {
    set name [only name $args]
    lassign [split $name /] cell space
    set processor [expr {[dict exists $::cells $cell]
        && [dict exists $::catalog [dict get $::cells $cell vlnv] window]}]
    return [expr {$processor && $space eq "Data" ? $name : ""}]
}

proc get_bd_addr_segs {args} {
    lassign [options get_bd_addr_segs $args {-of_objects 1}] flags rest
    set interface [dict get $flags -of_objects]
    lassign [member interfaces $interface] kind protocol
    if {$kind ne "SLAVE" || $rest ne ""} {
        error "get_bd_addr_segs: $interface is no slave"
    }
    return $interface/Reg
}

proc assign_bd_address {args} {
    lassign [options assign_bd_address $args {-target_address_space 1 -offset 1 -range 1}] flags rest
    if {$rest eq "" && $flags eq ""} {
        set ::automatic 1
        return
    }
    set path [join [lrange [split [only segment $rest] /] 0 1] /]
    lassign [split [dict get $flags -target_address_space] /] ps space
    set base [expr {[dict get $flags -offset] + 0}]
    set range [expr {[dict get $flags -range] + 0}]
    if {$range < 4096 || $range & ($range - 1) || $base % $range} {
        error "$path: range $range at [format 0x%08X $base] is not aligned"
    }
    lassign [dict get $::catalog [dict get $::cells $ps vlnv] window] low high
    if {$base < $low || $base + $range - 1 > $high} {
        error "$path: [format 0x%08X $base] is not within what $ps reaches"
    }
    foreach other $::addresses {
        lassign $other name start size
        if {$base < $start + $size && $start < $base + $range} {
            error "$path and $name overlap"
        }
    }
    if {[string match rowvit_0/* $path] && $range > 4096} {
        error "$path: its 12 address bits are 4096 bytes"
    }
    lappend ::addresses [list $path $base $range]
}

proc validate_bd_design {} {
    set automated 0
    dict for {cell content} $::cells {
        dict for {name kind} [dict get $content interfaces] {
            if {![dict exists $::wired $cell/$name]} {
                error "validate_bd_design: $cell/$name is not wired"
            }
        }
        dict for {name pin} [dict get $content pins] {
            lassign $pin direction kind
            if {$direction eq "I" && $kind in {clk rst data} && ![dict exists $::nets $cell/$name]} {
                error "validate_bd_design: $cell/$name has no driver"
            }
        }
        incr automated [dict exists $content automated]
    }
    if {$automated != 1} {
        error "validate_bd_design: no processing system with its external ports"
    }
    if {![info exists ::automatic]} {
        error "validate_bd_design: masters have no addresses"
    }
    # every slave behind the processor has an address
    foreach {interface partner} $::wired {
        lassign [split $interface /] cell name
        lassign [member interfaces $interface] kind protocol
        set ip [lindex [split [dict get $::cells $cell vlnv] :] 2]
        set mapped [expr {[lsearch -index 0 -exact $::addresses $interface] >= 0}]
        if {$kind eq "SLAVE" && [dict exists $::addressed $ip] && !$mapped} {
            error "validate_bd_design: $interface has no address"
        }
    }
    set ::validated 1
}

proc save_bd_design {} {
    if {!$::validated} {
        error "the design is not validated"
    }
}

proc generate_target {target file} {
    if {$target ne "all" || $file ne "system.bd" || !$::validated} {
        error "generate_target $target $file"
    }
    set out [file join $::directory $::project.gen sources_1 bd system hw_handoff]
    write_file [file join $out system.hwh] "<EDKSYSTEM CLOCK=\"[clock_hz ps_0/[ps_clock]]\"/>"
    set ::generated 1
}

proc record {path} {
    set lines [list [list part $::part] [list board_part $::board_part]]
    dict for {cell content} $::cells {
        lappend lines [list cell $cell [dict get $content vlnv]]
        dict for {name value} [dict get $content parameters] {
            lappend lines [list parameter $cell $name $value]
        }
        dict for {name kind} [dict get $content interfaces] {
            lappend lines [list interface $cell/$name [lindex $kind 0]]
        }
    }
    foreach {from to} $::wired {
        lappend lines [list wire $from $to]
    }
    foreach {load driver} $::nets {
        lappend lines [list net $driver $load]
    }
    foreach address $::addresses {
        lappend lines [list address {*}$address]
    }
    dict for {file fileset} $::files {
        lappend lines [list file $fileset $file]
    }
    set text {}
    foreach line $lines {
        lappend text [join $line \t]
    }
    write_file $path [join $text \n]
}

proc make_wrapper {args} {
    lassign [options make_wrapper $args {-files 1 -top 0 -import 0}] flags rest
    if {[dict get $flags -files] ne "system.bd" || !$::generated} {
        error "make_wrapper: generate the block design first"
    }
    set ::wrapper 1
}

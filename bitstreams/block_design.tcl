# SPDX-License-Identifier: Apache-2.0
# The block design, from the dictionary that build.py writes. Versions of IP are not fixed: of
# every IP, the newest that this Vivado has.

# The objects that a query finds; where Vivado would warn and go on with nothing, the build ends.
proc found {what objects} {
    if {[llength $objects] == 0} {
        error "this Vivado finds no $what"
    }
    return $objects
}

proc pin {name} {
    return [found "pin $name" [get_bd_pins -quiet $name]]
}

proc interface {name} {
    return [found "interface $name" [get_bd_intf_pins -quiet $name]]
}

proc newest_ip {name} {
    set definitions [get_ipdefs -all -filter "VLNV =~ $name:*"]
    return [lindex [lsort -dictionary [found "IP $name" $definitions]] end]
}

proc configure {cell parameters} {
    set properties {}
    dict for {name value} $parameters {
        lappend properties CONFIG.$name $value
    }
    if {[llength $properties] > 0} {
        set_property -dict $properties $cell
    }
}

# The board file's settings, if there is one; otherwise those of boards.toml. Then what says how further
# settings are understood.
proc configure_processing_system {design preset} {
    set name [dict get $design processing_system]
    set cell [get_bd_cells $name]
    set ip [lindex [split [dict get $design cells $name vlnv] :] 2]
    set options [dict merge [dict get $design rule] [list apply_board_preset $preset]]
    apply_bd_automation -rule xilinx.com:bd_rule:$ip -config $options $cell
    if {!$preset} {
        configure $cell [dict get $design settings]
    }
    configure $cell [dict get $design first]
}

proc create_block_design {design preset} {
    create_bd_design system
    dict for {name cell} [dict get $design cells] {
        lassign [split [dict get $cell vlnv] :] vendor library ip
        if {$library eq "module_ref"} {
            set object [create_bd_cell -type module -reference $ip $name]
        } else {
            set object [create_bd_cell -type ip -vlnv [newest_ip $vendor:$library:$ip] $name]
        }
        if {$name eq [dict get $design processing_system]} {
            configure_processing_system $design $preset
        }
        configure $object [dict get $cell parameters]
    }
    foreach pair [dict get $design interfaces] {
        lassign $pair master slave
        connect_bd_intf_net [interface $master] [interface $slave]
    }
    dict for {driver loads} [dict get $design nets] {
        foreach load $loads {
            connect_bd_net [pin $driver] [pin $load]
        }
    }
    set space [dict get $design processing_system]/Data
    set space [found "address space $space" [get_bd_addr_spaces $space]]
    foreach slave [dict get $design addresses] {
        lassign $slave name base range
        set segment [found "addresses of $name" [get_bd_addr_segs -of_objects [interface $name]]]
        assign_bd_address -target_address_space $space -offset $base -range $range $segment
    }
    # the masters on the memory ports: all that Vivado finds there
    assign_bd_address
    validate_bd_design
    save_bd_design
}

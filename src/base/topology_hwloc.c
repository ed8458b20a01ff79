/*
 * Topology by hwloc, which knows the caches and nodes of more machines and systems than sysfs
 * tells, and can be given made-up machines. Nothing is filtered out: without packages and groups
 * hwloc has nothing to hang a memory node on, and all processors seem to be near to all of them.
 * Takes 2 ms.
 */
#include "base/topology_impl.h"

#include <stdio.h>
#include <string.h>

#ifdef PONDER_HWLOC
#include <hwloc.h>

/* The largest cache above a processor: what its cores share. */
static unsigned hwloc_cache(hwloc_obj_t pu, unsigned node)
{
    unsigned found = 0;
    uint64_t size = 0;
    for (hwloc_obj_t o = pu->parent; o; o = o->parent)
        if (hwloc_obj_type_is_dcache(o->type) && o->attr->cache.size >= size &&
            o->attr->cache.depth > 2) {
            size = o->attr->cache.size;
            found = o->logical_index + 1;
        }
    return found ? found - 1 : node;
}

static unsigned hwloc_node(hwloc_topology_t t, hwloc_obj_t pu)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, o));)
        if (hwloc_bitmap_isset(o->cpuset, pu->os_index))
            return o->logical_index;
    return 0;
}

static int hwloc_fill(hwloc_topology_t t, struct topology_list *l, struct err *e)
{
    int rc = 0;
    for (hwloc_obj_t pu = NULL; !rc && (pu = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PU, pu));) {
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_CORE, pu);
        struct topology_cpu c = {.os = pu->os_index, .node = hwloc_node(t, pu)};
        c.cache = hwloc_cache(pu, c.node);
        /* Virtual machines may show no cores. */
        c.core = core ? core->logical_index : pu->logical_index;
        rc = topology_add(l, &c, e);
    }
    return rc;
}

int topology_hwloc(struct topology_list *l, const char *synthetic, char source[32], struct err *e)
{
    hwloc_topology_t t;
    if (hwloc_topology_init(&t))
        return err_nomem(e, 0, "the topology of the machine");
    int rc = 0;
    if ((synthetic && hwloc_topology_set_synthetic(t, synthetic)) || hwloc_topology_load(t))
        rc = err_set(e, ERR_UNSUPPORTED, "hwloc cannot tell the topology of the machine");
    else
        rc = hwloc_fill(t, l, e);
    if (!rc && !l->n)
        rc = err_set(e, ERR_UNSUPPORTED, "hwloc finds no processors");
    snprintf(source, 32, "hwloc");
    hwloc_topology_destroy(t);
    return rc;
}
#else
int topology_hwloc(struct topology_list *l, const char *synthetic, char source[32], struct err *e)
{
    (void)l, (void)synthetic, (void)source;
    return err_set(e, ERR_UNSUPPORTED, "this ponder was built without hwloc");
}
#endif

/* Folders: making, syncing and removing them. */
#ifndef PONDER_BASE_FOLDER_H
#define PONDER_BASE_FOLDER_H

#include "base/err.h"

/* Makes the folder and those above it; fine when it is there. */
int folder_make(const char *dir, struct err *e);

/* Makes what was renamed, made or removed in it last through a power cut. File systems that cannot
   sync a folder are fine, and so is one that may not be read. */
int folder_sync(const char *dir, struct err *e);

/* Removes a folder and the files in it. ERR_NOTFOUND is no error. A folder inside it is: then that
   stays. */
int folder_remove(const char *dir, struct err *e);

/* Gives the folder `part` the name `final`, where `final` may be a folder with files: they change
   places in one instant where the file system can, and the old one is removed (elsewhere it is
   called PART.old meanwhile). */
int folder_replace(const char *part, const char *final, struct err *e);

#endif

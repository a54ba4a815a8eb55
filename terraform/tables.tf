# Functions, records and keys. The daemon's own list of tables is what `faasd admin create-tables` makes; scripts/deploy-test.sh compares.
#
# On demand: nothing to pay while nobody calls, and nothing to plan. Keys are strings. `expires`: DynamoDB deletes items by their
# attribute `ttl`, some day; `backup` is for what can't be had again (0.20 USD a gigabyte and month), not for records that end by themselves.

locals {
  # An index is in order of its range; `keys`: it holds no more than keys.
  by_owner = { hash = "of_owner", range = "seq", holds = "keys" }
  by_time  = { hash = "of_all", range = "seq", holds = "keys" }

  tables = {
    invocations = {
      hash = "id", range = null, expires = true, backup = false
      indexes = {
        by_owner    = local.by_owner
        by_function = { hash = "of_function", range = "seq", holds = "keys" }
        by_time     = local.by_time
        by_state    = { hash = "of_state", range = "seq", holds = "keys" }
        by_failure  = { hash = "of_failure", range = "seq", holds = "keys" }
      }
    }
    idempotency = { hash = "key", range = null, expires = true, backup = false, indexes = {} }
    functions = {
      hash = "pk", range = "sk", expires = true, backup = true
      indexes = {
        by_name = { hash = "everybody", range = "place", holds = "all" }
      }
    }
    keys    = { hash = "pk", range = "sk", expires = false, backup = true, indexes = {} }
    lessons = { hash = "share", range = "of", expires = true, backup = false, indexes = {} }
    dead-letters = {
      hash = "id", range = null, expires = true, backup = true
      indexes = {
        by_owner = local.by_owner
        by_time  = local.by_time
      }
    }
  }
}

resource "aws_dynamodb_table" "store" {
  for_each = local.tables

  name                        = "${var.name}-${each.key}"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = each.value.hash
  range_key                   = each.value.range
  deletion_protection_enabled = var.protect_data

  dynamic "attribute" {
    for_each = toset(compact(concat(
      [each.value.hash, each.value.range],
      flatten([for index in each.value.indexes : [index.hash, index.range]]),
    )))

    content {
      name = attribute.value
      type = "S"
    }
  }

  dynamic "global_secondary_index" {
    for_each = each.value.indexes

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value.hash
      range_key       = global_secondary_index.value.range
      projection_type = global_secondary_index.value.holds == "all" ? "ALL" : "KEYS_ONLY"
    }
  }

  dynamic "ttl" {
    for_each = each.value.expires ? ["ttl"] : []

    content {
      attribute_name = ttl.value
      enabled        = true
    }
  }

  point_in_time_recovery {
    enabled = each.value.backup
  }

  tags = local.tags
}
